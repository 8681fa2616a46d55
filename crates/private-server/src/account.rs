//! The account that server programs run under. PostgreSQL refuses to run as root, so root uses an
//! unprivileged account.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt, lchown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

/// In this order: the account that PostgreSQL's packages create, and one that every system has.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];

/// An unprivileged account, by its user id and group id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    uid: u32,
    gid: u32,
}

impl Account {
    /// Chooses from the system's accounts.
    pub(crate) fn unprivileged() -> Result<Self> {
        let passwd = fs::read_to_string("/etc/passwd").context("read /etc/passwd")?;
        Self::choose(&passwd).context(
            "look for an account to run PostgreSQL under, which refuses root: /etc/passwd has neither \
             postgres nor nobody; run as an ordinary user, or add one with: useradd --system postgres",
        )
    }

    fn choose(passwd: &str) -> Option<Self> {
        let find = |name: &&str| {
            passwd.lines().find_map(|line| {
                // name:password:uid:gid:…, as passwd(5) has it.
                let mut fields = line.split(':');
                let same = fields.next()? == *name;
                let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
                (same && uid != 0).then_some(Self { uid, gid })
            })
        };
        UNPRIVILEGED.iter().find_map(find)
    }

    /// The owner of a folder, unless that is root.
    pub(crate) fn owner_of(folder: &Metadata) -> Option<Self> {
        (folder.uid() != 0).then(|| Self {
            uid: folder.uid(),
            gid: folder.gid(),
        })
    }

    /// Whether the account may enter a folder and all its parents. The kernel is asked, because mode bits
    /// are not enough: access lists and mount options count too.
    pub(crate) fn can_reach(self, folder: &Path) -> bool {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", ":"])
            .current_dir(folder)
            .stdin(Stdio::null());
        self.take(&mut command);
        command.status().is_ok_and(|status| status.success())
    }

    /// Makes a command run under the account. std then also drops root's supplementary groups.
    pub(crate) fn take(self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    /// Makes the account the owner of a file; of a link itself, not of its target.
    pub(crate) fn own(self, path: &Path) -> Result<()> {
        lchown(path, Some(self.uid), Some(self.gid))
            .with_context(|| format!("give {} to uid {}", path.display(), self.uid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postgres_is_preferred_to_nobody_and_root_is_never_taken() {
        let nobody = "root:x:0:0::/:\nnobody:x:65534:65533::/:\n";
        let both =
            format!("{nobody}postgres:x:101:104:PostgreSQL,,,:/var/lib/postgresql:/bin/bash\n");
        assert_eq!(
            Account::choose(nobody),
            Some(Account {
                uid: 65534,
                gid: 65533
            })
        );
        assert_eq!(Account::choose(&both), Some(Account { uid: 101, gid: 104 }));
        assert_eq!(
            Account::choose("root:x:0:0::/:\npostgres:x:0:0::/:\n+::::\n"),
            None
        );
    }
}
