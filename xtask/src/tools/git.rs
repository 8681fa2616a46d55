//! git, asked for what files held before. It is only read, by plumbing commands: neither a person's settings
//! and aliases nor the variables of a hook change what they print, or which repository they read.

use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use xshell::{Shell, cmd};

use crate::error::{Failure, Result};
use crate::hint::Hint;
use crate::shell::shell_word;

/// What a hook, or git itself, sets for a repository that need not be this one (`git rev-parse
/// --local-env-vars`, without the variables that hold settings: `safe.directory` may be among those).
const OF_ANOTHER_REPOSITORY: [&str; 12] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
];

/// The repository that a folder is in.
pub(crate) struct Git {
    pub(crate) dir: PathBuf,
    /// The folder's path in it: empty, or with a `/` at its end.
    pub(crate) prefix: String,
    /// Whether older commits were left out when it was cloned.
    pub(crate) shallow: bool,
}

/// A file as a commit brought it.
#[derive(Clone, Debug)]
pub(crate) struct FileVersion {
    pub(crate) object: String,
    /// From the top of the repository.
    pub(crate) path: String,
    pub(crate) commit: String,
}

impl FileVersion {
    pub(crate) fn file_name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

impl Git {
    /// # Errors
    /// If there is no git, the folder is in no repository, or git will not read it.
    pub(crate) fn open(dir: &Path) -> Result<Git> {
        // Whether there is none or git will not read it, git's message says, and its exit code does not.
        if !dir.ancestors().any(|folder| folder.join(".git").exists()) {
            return Err(
                Failure::failed(format!("`{}` is in no git repository", dir.display()))
                    .cause("what a file held when it was applied is looked for in git")
                    .state("nothing was changed")
                    .hint("put the file back as it was applied, from a backup or another machine")
                    .hint(Hint::to("then", "db-status"))
                    .into(),
            );
        }
        let mut git = Git {
            dir: dir.to_owned(),
            prefix: String::new(),
            shallow: false,
        };
        let asked = ["rev-parse", "--is-shallow-repository", "--show-prefix"];
        let answer = git.output(&asked)?;
        let mut lines = answer.lines();
        git.shallow = lines.next() == Some("true");
        git.prefix = lines.next().unwrap_or_default().to_owned();
        Ok(git)
    }

    /// Every version of every `.sql` file in all branches, tags, stashes and reflogs, newest first. A merge
    /// counts for what it holds that none of its parents does.
    ///
    /// Paths are not given to git: it would match each entry of a large folder in each commit (26 s instead of
    /// 5 s for 10,000 files that came in as many commits).
    ///
    /// # Errors
    /// If git fails.
    pub(crate) fn sql_files(&self) -> Result<Vec<FileVersion>> {
        let commits = self.output(&["rev-list", "--all", "--reflog"])?;
        let changes = "diff-tree --stdin -r -c -z --root --no-renames";
        let changes: Vec<&str> = changes.split(' ').collect();
        self.run(&changes, &commits, |output| {
            let (mut versions, mut commit) = (Vec::new(), String::new());
            let (mut record, mut path) = (Vec::new(), Vec::new());
            // A commit, then for each file `:MODES OBJECTS STATUS` and its path, each with a NUL behind it.
            while output.read_until(0, &mut record)? > 0 {
                let text = String::from_utf8_lossy(&record);
                let text = text.trim_end_matches('\0');
                if text.starts_with(':') {
                    output.read_until(0, &mut path)?;
                    // With several parents there are as many more objects: the last is the commit's own.
                    let object = text.rsplit(' ').nth(1).unwrap_or_default();
                    if path.ends_with(b".sql\0") && object.contains(|c| c != '0') {
                        versions.push(FileVersion {
                            object: object.to_owned(),
                            path: String::from_utf8_lossy(&path[..path.len() - 1]).into_owned(),
                            commit: commit.clone(),
                        });
                    }
                    path.clear();
                } else {
                    text.clone_into(&mut commit);
                }
                record.clear();
            }
            Ok(versions)
        })
    }

    /// Reads objects, one after the other.
    ///
    /// # Errors
    /// If git fails.
    pub(crate) fn contents(&self, objects: &[&str], mut each: impl FnMut(&str, Vec<u8>)) -> Result {
        let objects = objects.join("\n") + "\n";
        self.run(&["cat-file", "--batch"], &objects, |output| {
            let mut header = String::new();
            // `OBJECT TYPE SIZE`, or `OBJECT missing`.
            while output.read_line(&mut header)? > 0 {
                let fields: Vec<&str> = header.trim_end().split(' ').collect();
                if let [object, _, size] = fields[..] {
                    let mut bytes = vec![0; size.parse()?];
                    output.read_exact(&mut bytes)?;
                    output.read_exact(&mut [0])?;
                    each(object, bytes);
                }
                header.clear();
            }
            Ok(())
        })
    }

    /// What each of these commits is called by the branches, tags and stashes that reach it: `main`, `main~2`;
    /// nothing if none does.
    ///
    /// # Errors
    /// If git fails.
    pub(crate) fn names(&self, commits: &[&str]) -> Result<Vec<Option<String>>> {
        if commits.is_empty() {
            return Ok(Vec::new());
        }
        let names = self.output(&[&["name-rev", "--name-only"], commits].concat())?;
        let name = |line: &str| (line != "undefined").then(|| line.to_owned());
        Ok(names.lines().map(name).collect())
    }

    fn output(&self, arguments: &[&str]) -> Result<String> {
        self.run(arguments, "", |output| {
            let mut bytes = Vec::new();
            output.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        })
    }

    /// Runs git with this input, and reads what it prints. The input and what it complains of are files: it
    /// answers before it has read all.
    fn run<T>(
        &self,
        arguments: &[&str],
        input: &str,
        read: impl FnOnce(&mut dyn BufRead) -> Result<T>,
    ) -> Result<T> {
        let (mut stdin, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
        stdin.write_all(input.as_bytes())?;
        stdin.rewind()?;
        let mut child = command(&self.dir, arguments)?
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(stderr.try_clone()?)
            .spawn()
            .map_err(cannot_start)?;
        let output = child.stdout.take().context("git has no output")?;
        let result = read(&mut BufReader::new(output));
        let status = child.wait()?;
        if status.success() {
            return result;
        }
        let mut complaints = Vec::new();
        stderr.rewind()?;
        stderr.read_to_end(&mut complaints)?;
        let mut failure = Failure::failed(format!("`git {}` failed ({status})", arguments[0]));
        for line in String::from_utf8_lossy(&complaints).lines() {
            failure
                .causes
                .extend((!line.trim().is_empty()).then(|| line.trim().to_owned()));
        }
        let look = format!("git -C {} status", shell_word(self.dir.display()));
        Err(failure
            .state("nothing was changed")
            .hint(format!("do what git says above; then this works: {look}"))
            .hint(Hint::again("then"))
            .into())
    }
}

/// git in this folder, whatever a hook has set.
/// The names in the folder `dir` at a commit; none if the commit does not have the folder.
///
/// # Errors
/// If there is no git, no repository, or no such commit.
pub(crate) fn names_in(dir: &Path, reference: &str) -> Result<Vec<String>> {
    // A branch may have the folder where it is still to be made here.
    let mut places = dir.ancestors();
    let place = places.find(|folder| folder.is_dir()).unwrap_or(dir);
    let commit = format!("{reference}^{{commit}}");
    let mut git = command(
        place,
        &["ls-tree", "-z", "--name-only", "--end-of-options", &commit],
    )?;
    if let Ok(below) = dir.strip_prefix(place)
        && below != ""
    {
        git.arg(below.join(""));
    }
    let cause = match git.output() {
        Ok(output) if output.status.success() => {
            let names = String::from_utf8_lossy(&output.stdout);
            let names = names.split_terminator('\0');
            // git writes them with the folder.
            let names = names.map(|path| path.rsplit('/').next().unwrap_or(path).to_owned());
            return Ok(names.collect());
        }
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => format!("cannot start `git`: {error}"),
    };
    let what = format!("cannot look at the migrations on `{reference}`");
    Err(Failure::usage(what)
        .cause(cause)
        .state("no file was written")
        .hint("fetch it: git fetch --all")
        .hint("or leave out `--against`")
        .into())
}

fn command(dir: &Path, arguments: &[&str]) -> Result<Command> {
    let sh = Shell::new()?;
    let mut command: Command = cmd!(sh, "git -C {dir} {arguments...}").into();
    for variable in OF_ANOTHER_REPOSITORY {
        command.env_remove(variable);
    }
    command
        .env("LC_ALL", "C")
        .env("GIT_NO_REPLACE_OBJECTS", "1")
        .env("GIT_TERMINAL_PROMPT", "0");
    Ok(command)
}

fn cannot_start(error: std::io::Error) -> anyhow::Error {
    let message = match error.kind() {
        std::io::ErrorKind::NotFound => "command not found: `git`".to_owned(),
        _ => format!("cannot start `git`: {error}"),
    };
    Failure::failed(message)
        .cause("what a file held when it was applied is looked for in git")
        .state("nothing was changed")
        .hint(Hint::again("install git (https://git-scm.com), then"))
        .into()
}

/// The difference between two texts of a file, as `git diff` shows it where nobody has set anything.
///
/// # Errors
/// If git fails.
pub(crate) fn diff(name: &str, applied: &[u8], now: &[u8]) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    for (side, bytes) in [("applied", applied), ("now", now)] {
        std::fs::create_dir(folder.join(side))?;
        std::fs::write(folder.join(side).join(name), bytes)?;
    }
    let arguments = "-c core.quotePath=false diff --no-index --no-ext-diff --no-textconv --text \
                     --no-color --no-prefix applied now";
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let output = command(folder, &arguments)?
        .env_remove("GIT_CONFIG_PARAMETERS")
        .env_remove("GIT_CONFIG_COUNT")
        .env_remove("GIT_DIFF_OPTS")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        // Not in a repository that the folder for temporary files may be in.
        .env("GIT_CEILING_DIRECTORIES", folder.parent().unwrap_or(folder))
        .stdin(Stdio::null())
        .output()
        .map_err(cannot_start)?;
    // 1 says that they differ.
    if !matches!(output.status.code(), Some(0 | 1)) {
        return Err(
            Failure::failed(format!("`git diff` failed ({})", output.status))
                .cause(String::from_utf8_lossy(&output.stderr).trim().to_owned())
                .state("nothing was changed")
                .hint(Hint::again("see whether git works: git --version; then"))
                .into(),
        );
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.trim_end().to_owned())
}
