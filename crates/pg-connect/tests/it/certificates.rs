//! Certificates as the manual's *Creating Certificates* makes them, by openssl.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder of certificates; `NAME.crt` and `NAME.key` each.
pub(crate) struct Certificates<'a> {
    pub(crate) folder: &'a Path,
}

impl Certificates<'_> {
    pub(crate) fn certificate(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.crt"))
    }

    pub(crate) fn key(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.key"))
    }

    /// A root that signs others.
    pub(crate) fn authority(&self, name: &str) {
        self.request(name, &format!("/CN={name}"));
        self.sign_itself(name, "basicConstraints=critical,CA:TRUE");
    }

    /// A certificate of its own making, with these lines of extensions.
    pub(crate) fn self_signed(&self, name: &str, common_name: &str, extensions: &str) {
        self.request(name, &format!("/O=Test/CN={common_name}"));
        self.sign_itself(name, extensions);
    }

    /// A certificate that a root signs; without extensions it is of X.509 version 1.
    pub(crate) fn signed_by(&self, root: &str, name: &str, common_name: &str, extensions: &str) {
        self.request(name, &format!("/O=Test/CN={common_name}"));
        let mut command = self.sign(name, extensions);
        command
            .arg("-CA")
            .arg(self.certificate(root))
            .arg("-CAkey")
            .arg(self.key(root))
            .arg("-CAcreateserial");
        run(&mut command);
    }

    fn request(&self, name: &str, subject: &str) {
        let mut command = Command::new("openssl");
        command
            .args([
                "req",
                "-new",
                "-nodes",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
            ])
            .args(["-subj", subject, "-keyout"])
            .arg(self.key(name))
            .arg("-out")
            .arg(self.folder.join(format!("{name}.csr")));
        run(&mut command);
    }

    fn sign_itself(&self, name: &str, extensions: &str) {
        run(self
            .sign(name, extensions)
            .arg("-signkey")
            .arg(self.key(name)));
    }

    fn sign(&self, name: &str, extensions: &str) -> Command {
        let mut command = Command::new("openssl");
        command
            .args(["x509", "-req", "-days", "2", "-in"])
            .arg(self.folder.join(format!("{name}.csr")))
            .arg("-out")
            .arg(self.certificate(name));
        if !extensions.is_empty() {
            let file = self.folder.join(format!("{name}.ext"));
            std::fs::write(&file, extensions).unwrap();
            command.arg("-extfile").arg(file);
        }
        command
    }

    /// An empty list of what a root has revoked, or one with certificates on it.
    pub(crate) fn revoke(&self, root: &str, revoked: &[&str]) -> PathBuf {
        let at = |suffix: &str| self.folder.join(format!("{root}{suffix}"));
        std::fs::write(at(".index"), "").unwrap();
        let config = format!(
            "[ca]\ndefault_ca=a\n[a]\ndatabase={}\ncertificate={}\nprivate_key={}\ndefault_md=sha256\ndefault_crl_days=2\ncrl_extensions=e\n\
             crlnumber={}\n[e]\nauthorityKeyIdentifier=keyid\n",
            at(".index").display(),
            self.certificate(root).display(),
            self.key(root).display(),
            at(".crlnumber").display()
        );
        std::fs::write(at(".crlnumber"), "01").unwrap();
        std::fs::write(at(".conf"), config).unwrap();
        let ca = || {
            let mut command = Command::new("openssl");
            command.args(["ca", "-config"]).arg(at(".conf"));
            command
        };
        for name in revoked {
            run(ca().arg("-revoke").arg(self.certificate(name)));
        }
        let list = at(if revoked.is_empty() {
            ".empty.crl"
        } else {
            ".crl"
        });
        run(ca().arg("-gencrl").arg("-out").arg(&list));
        list
    }
}

fn run(command: &mut Command) {
    let output = command.output().expect("openssl is installed");
    assert!(output.status.success(), "{command:?}: {output:?}");
}
