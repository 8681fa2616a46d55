//! The commands that install PostgreSQL on this platform and start the system's own server:
//! shown in hints, and run by `db-setup` after the user has agreed. Nothing is run here.

use std::fmt;
use std::fs;
use std::path::Path;

/// A command as an argument vector; `Display` prints it as typed in a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlatformCommand(
    /// The program, then its arguments. No argument needs quoting in a shell.
    pub Vec<String>,
);

impl fmt::Display for PlatformCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

/// What the commands depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Platform {
    /// The family of platforms, by package manager.
    pub family: Family,
    /// Whether this process is root and needs no `sudo`.
    pub root: bool,
    /// Whether systemd runs; in most containers it does not.
    pub systemd: bool,
}

/// Platforms that share a package manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Family {
    Alpine,
    Arch,
    Debian,
    Fedora,
    MacOs,
    Suse,
    Unknown,
}

impl Platform {
    /// The platform of this machine.
    pub fn detect() -> Self {
        let family = match cfg!(target_os = "macos") {
            true => Family::MacOs,
            false => {
                Family::of_os_release(&fs::read_to_string("/etc/os-release").unwrap_or_default())
            }
        };
        Self {
            family,
            root: rustix::process::geteuid().is_root(),
            // What sd_booted(3) looks at.
            systemd: Path::new("/run/systemd/system").is_dir(),
        }
    }

    /// The commands that install PostgreSQL's server and clients, in order and without questions;
    /// none if the platform is unknown.
    pub fn install_commands(&self) -> Vec<PlatformCommand> {
        let lines: &[&str] = match self.family {
            // A fresh container has no package lists at all, so update first.
            Family::Debian => &["apt-get update", "apt-get install -y postgresql"],
            Family::Fedora => &["dnf install -y postgresql-server"],
            Family::Arch => &["pacman -S --needed --noconfirm postgresql"],
            Family::Alpine => &["apk add postgresql postgresql-client"],
            Family::Suse => &["zypper --non-interactive install postgresql-server"],
            Family::MacOs => &["brew install postgresql@17"],
            Family::Unknown => &[],
        };
        lines.iter().map(|line| self.command(line)).collect()
    }

    /// The command that starts the system's own server (not a private one).
    pub fn start_command(&self) -> Option<PlatformCommand> {
        let line = match self.family {
            Family::MacOs => "brew services start postgresql@17",
            Family::Alpine => "rc-service postgresql start",
            Family::Debian if !self.systemd => "service postgresql start",
            _ if self.systemd => "systemctl start postgresql",
            _ => return None,
        };
        Some(self.command(line))
    }

    fn command(&self, line: &str) -> PlatformCommand {
        // Homebrew refuses to run as root.
        let sudo = !self.root && self.family != Family::MacOs;
        let words = sudo.then_some("sudo").into_iter().chain(line.split(' '));
        PlatformCommand(words.map(str::to_owned).collect())
    }
}

impl Family {
    /// The family by the text of `/etc/os-release`: its `ID`, else the closest of its `ID_LIKE`,
    /// which os-release(5) orders by closeness.
    pub fn of_os_release(text: &str) -> Self {
        let field = |name: &str| {
            let value = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            value
                .unwrap_or_default()
                .trim_matches(['"', '\''])
                .to_owned()
        };
        let names = format!("{} {}", field("ID"), field("ID_LIKE"));
        names
            .split_whitespace()
            .find_map(Self::of_name)
            .unwrap_or(Self::Unknown)
    }

    fn of_name(id: &str) -> Option<Self> {
        Some(match id {
            "debian" | "ubuntu" => Self::Debian,
            "fedora" | "rhel" | "centos" => Self::Fedora,
            "arch" => Self::Arch,
            "alpine" => Self::Alpine,
            "suse" | "opensuse" => Self::Suse,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_family_is_known_by_id_or_likeness() {
        let table = [
            ("PRETTY_NAME=\"Debian 12\"\nID=debian\n", Family::Debian),
            ("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", Family::Debian),
            (
                "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n",
                Family::Fedora,
            ),
            ("ID='manjaro'\nID_LIKE=arch\n", Family::Arch),
            (
                "ID=\"opensuse-tumbleweed\"\nID_LIKE=\"opensuse suse\"\n",
                Family::Suse,
            ),
            ("ID=alpine", Family::Alpine),
            ("ID=plan9", Family::Unknown),
            ("", Family::Unknown),
        ];
        for (text, family) in table {
            assert_eq!(Family::of_os_release(text), family, "{text:?}");
        }
    }

    #[test]
    fn commands_are_what_a_person_would_type() {
        let platform = |family, root, systemd| Platform {
            family,
            root,
            systemd,
        };
        let typed = |platform: Platform| -> Vec<String> {
            platform
                .install_commands()
                .iter()
                .chain(&platform.start_command())
                .map(ToString::to_string)
                .collect()
        };
        assert_eq!(
            typed(platform(Family::Debian, false, true)),
            [
                "sudo apt-get update",
                "sudo apt-get install -y postgresql",
                "sudo systemctl start postgresql"
            ]
        );
        assert_eq!(
            typed(platform(Family::Debian, true, false)),
            [
                "apt-get update",
                "apt-get install -y postgresql",
                "service postgresql start"
            ]
        );
        assert_eq!(
            typed(platform(Family::MacOs, false, false)),
            [
                "brew install postgresql@17",
                "brew services start postgresql@17"
            ]
        );
        assert!(typed(platform(Family::Unknown, false, false)).is_empty());
    }
}
