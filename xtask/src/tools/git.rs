//! git, asked for what files held before. It is only read, by plumbing commands: neither a person's settings
//! and aliases nor the variables of a hook change what they print, or which repository they read.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

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
    dir: PathBuf,
    /// The folder's path in it: empty, or with a `/` at its end.
    pub(crate) prefix: String,
    /// Whether older commits were left out when it was cloned.
    pub(crate) shallow: bool,
}

/// A file as a commit brought it, or as it is staged.
#[derive(Clone, Debug)]
pub(crate) struct FileVersion {
    pub(crate) object: String,
    /// From the top of the repository.
    pub(crate) path: String,
    /// `None` if it is only staged.
    pub(crate) commit: Option<String>,
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
        let mut git = Git {
            dir: dir.to_owned(),
            prefix: String::new(),
            shallow: false,
        };
        // Which of both it is, the message says to people and the exit code does not.
        let mut folders = dir.ancestors();
        if !folders.any(|folder| folder.join(".git").exists()) {
            return Err(
                Failure::failed(format!("`{}` is in no git repository", dir.display()))
                    .cause("what a file held when it was applied is looked for in git")
                    .state("nothing was changed")
                    .hint("put the file back as it was applied, from a backup or another machine")
                    .hint(Hint::to("then", "db-status"))
                    .into(),
            );
        }
        let asked = ["rev-parse", "--is-shallow-repository", "--show-prefix"];
        let answer = git.output(&asked, Stdio::null())?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let mut lines = answer.lines();
        git.shallow = lines.next() == Some("true");
        git.prefix = lines.next().unwrap_or_default().to_owned();
        Ok(git)
    }

    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let (sh, dir) = (Shell::new()?, &self.dir);
        let mut command: Command = cmd!(sh, "git -C {dir} {arguments...}").into();
        for variable in OF_ANOTHER_REPOSITORY {
            command.env_remove(variable);
        }
        command
            .env("LC_ALL", "C")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .stdin(Stdio::null());
        Ok(command)
    }

    /// Starts git; what it complains of goes to the file.
    fn start(&self, arguments: &[&str], stdin: Stdio) -> Result<(Child, File)> {
        let complaints = tempfile::tempfile()?;
        let mut command = self.command(arguments)?;
        command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(complaints.try_clone()?);
        Ok((command.spawn().map_err(cannot_start)?, complaints))
    }

    fn output(&self, arguments: &[&str], stdin: Stdio) -> Result<Vec<u8>> {
        let (child, complaints) = self.start(arguments, stdin)?;
        let output = child.wait_with_output()?;
        self.check(arguments, output.status, complaints)?;
        Ok(output.stdout)
    }

    fn check(&self, arguments: &[&str], status: ExitStatus, mut complaints: File) -> Result {
        if status.success() {
            return Ok(());
        }
        let mut text = Vec::new();
        complaints.rewind()?;
        complaints.read_to_end(&mut text)?;
        let mut failure = Failure::failed(format!("`git {}` failed ({status})", arguments[0]));
        let text = String::from_utf8_lossy(&text);
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            failure = failure.cause(line.trim());
        }
        Err(failure
            .state("nothing was changed")
            .hint(format!(
                "do what git says above; then this works: git -C {} status",
                shell_word(self.dir.display())
            ))
            .hint(Hint::again("then"))
            .into())
    }

    /// Every version of every `.sql` file: of all branches, tags, stashes and reflogs, newest first, and the
    /// staged ones of this folder. A merge counts for what it holds that none of its parents does.
    ///
    /// Paths are not given to git: it would match each entry of a large folder in each commit (26 s instead of
    /// 5 s for 10,000 files that came in as many commits).
    ///
    /// # Errors
    /// If git fails.
    pub(crate) fn sql_files(&self) -> Result<Vec<FileVersion>> {
        let mut versions = self.staged()?;
        let revisions = ["rev-list", "--all", "--reflog"];
        let (mut lister, of_lister) = self.start(&revisions, Stdio::null())?;
        let listed = lister.stdout.take().context("git has no output")?;
        let changes = [
            "diff-tree",
            "--stdin",
            "-r",
            "-c",
            "-z",
            "--root",
            "--no-renames",
        ];
        let (mut differ, of_differ) = self.start(&changes, listed.into())?;
        let output = differ.stdout.take().context("git has no output")?;
        read_changes(BufReader::new(output), &mut versions)?;
        self.check(&changes, differ.wait()?, of_differ)?;
        self.check(&revisions, lister.wait()?, of_lister)?;
        Ok(versions)
    }

    fn staged(&self) -> Result<Vec<FileVersion>> {
        let output = self.output(&["ls-files", "--stage", "-z"], Stdio::null())?;
        let output = String::from_utf8_lossy(&output);
        let versions = output.split('\0').filter_map(|entry| {
            let (fields, path) = entry.split_once('\t')?;
            path.ends_with(".sql").then_some(FileVersion {
                object: fields.split(' ').nth(1)?.to_owned(),
                path: format!("{}{path}", self.prefix),
                commit: None,
            })
        });
        Ok(versions.collect())
    }

    /// Reads objects, one after the other.
    ///
    /// # Errors
    /// If git fails.
    pub(crate) fn contents(&self, objects: &[&str], mut each: impl FnMut(&str, Vec<u8>)) -> Result {
        let read = ["cat-file", "--batch"];
        let (mut child, complaints) = self.start(&read, lines(objects)?)?;
        let mut output = BufReader::new(child.stdout.take().context("git has no output")?);
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
        self.check(&read, child.wait()?, complaints)
    }

    /// For each of these files the branches, tags and stashes that have it at their end.
    ///
    /// # Errors
    /// If git fails.
    pub(crate) fn refs_with(&self, files: &[&FileVersion]) -> Result<Vec<Vec<String>>> {
        let listed = self.output(&["for-each-ref", "--format=%(refname)"], Stdio::null())?;
        let listed = String::from_utf8_lossy(&listed).into_owned();
        let names: Vec<&str> = listed.lines().collect();
        if names.is_empty() {
            return Ok(vec![Vec::new(); files.len()]);
        }
        // A path that has several lines cannot be asked for, and is found nowhere.
        let paths = files.iter().map(|file| file.path.replace('\n', " "));
        let asked: Vec<String> = paths
            .flat_map(|path| names.iter().map(move |name| format!("{name}:{path}")))
            .collect();
        let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
        let found = self.output(&["cat-file", "--batch-check"], lines(&asked)?)?;
        let found = String::from_utf8_lossy(&found).into_owned();
        let found: Vec<&str> = found.lines().collect();
        let short = |name: &str| {
            let kinds = ["refs/heads/", "refs/remotes/", "refs/tags/", "refs/"];
            let mut kinds = kinds.iter().filter_map(|kind| name.strip_prefix(kind));
            kinds.next().unwrap_or(name).to_owned()
        };
        let refs = files.iter().zip(found.chunks(names.len()));
        Ok(refs
            .map(|(file, answers)| {
                let with_it = names.iter().zip(answers);
                let with_it = with_it.filter(|(_, answer)| answer.starts_with(&file.object));
                with_it.map(|(name, _)| short(name)).collect()
            })
            .collect())
    }
}

/// What `git diff-tree -z` prints: a commit, then for each file `:MODES OBJECTS STATUS` and its path.
fn read_changes(mut output: impl BufRead, versions: &mut Vec<FileVersion>) -> Result {
    let (mut commit, mut record, mut path) = (String::new(), Vec::new(), Vec::new());
    while output.read_until(0, &mut record)? > 0 {
        let text = String::from_utf8_lossy(&record);
        let text = text.trim_end_matches('\0');
        match text.starts_with(':') {
            false => text.clone_into(&mut commit),
            true => {
                path.clear();
                output.read_until(0, &mut path)?;
                let path = path.strip_suffix(b"\0").unwrap_or(&path);
                // With several parents there are as many more objects: the last is the commit's own.
                let object = text.rsplit(' ').nth(1).unwrap_or_default();
                if path.ends_with(b".sql") && object.contains(|c| c != '0') {
                    versions.push(FileVersion {
                        object: object.to_owned(),
                        path: String::from_utf8_lossy(path).into_owned(),
                        commit: Some(commit.clone()),
                    });
                }
            }
        }
        record.clear();
    }
    Ok(())
}

/// Input for git: a file, since git answers before it has read all.
fn lines(words: &[&str]) -> Result<Stdio> {
    let mut file = tempfile::tempfile()?;
    file.write_all(words.join("\n").as_bytes())?;
    file.write_all(b"\n")?;
    file.rewind()?;
    Ok(file.into())
}

fn cannot_start(error: std::io::Error) -> anyhow::Error {
    let failure = match error.kind() {
        std::io::ErrorKind::NotFound => {
            Failure::failed("command not found: `git`").cause("looked on PATH")
        }
        _ => Failure::failed("cannot start `git`").cause(error.to_string()),
    };
    failure
        .cause("what a file held when it was applied is looked for in git")
        .state("nothing was changed")
        .hint(Hint::again("install git (https://git-scm.com), then"))
        .into()
}

/// The difference between two texts of a file, as `git diff` shows it, with no settings of anybody.
///
/// # Errors
/// If git fails.
pub(crate) fn diff(name: &str, applied: &[u8], now: &[u8]) -> Result<String> {
    let folder = tempfile::tempdir()?;
    for (side, bytes) in [("applied", applied), ("now", now)] {
        std::fs::create_dir(folder.path().join(side))?;
        std::fs::write(folder.path().join(side).join(name), bytes)?;
    }
    let sh = Shell::new()?;
    let mut command: Command = cmd!(
        sh,
        "git -c core.quotePath=false diff --no-index --no-ext-diff --no-textconv --text --no-color --no-prefix -- applied now"
    )
    .into();
    let inherited: Vec<_> = std::iter::once("GIT_EXTERNAL_DIFF")
        .chain(["GIT_DIFF_OPTS", "GIT_CONFIG_PARAMETERS", "GIT_CONFIG_COUNT"])
        .chain(OF_ANOTHER_REPOSITORY)
        .collect();
    for variable in inherited {
        command.env_remove(variable);
    }
    let output = command
        .current_dir(&folder)
        .env("LC_ALL", "C")
        .env("HOME", folder.path())
        .env("XDG_CONFIG_HOME", folder.path())
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        // Not in a repository that the folder for temporary files may be in.
        .env(
            "GIT_CEILING_DIRECTORIES",
            folder.path().parent().unwrap_or(folder.path()),
        )
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
    Ok(String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned())
}
