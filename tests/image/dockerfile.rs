//! Parses the instructions that the Dockerfile uses, and panics at any other.

use std::fs;
use std::path::Path;

/// A Dockerfile, with its stages in order.
pub(crate) struct Dockerfile {
    pub(crate) stages: Vec<Stage>,
}

/// A FROM instruction and the instructions after it.
#[derive(Default)]
pub(crate) struct Stage {
    pub(crate) from: String,
    pub(crate) name: String,
    pub(crate) workdir: String,
    /// Files of the context, and the folder of the stage to copy them to.
    pub(crate) copies: Vec<(Vec<String>, String)>,
    /// The name of another stage, the path there, and the path in this stage.
    pub(crate) copies_from: Vec<(String, String, String)>,
    /// Shell commands.
    pub(crate) runs: Vec<String>,
    pub(crate) user: String,
    pub(crate) entrypoint: Vec<String>,
    pub(crate) cmd: Vec<String>,
}

impl Dockerfile {
    pub(crate) fn read() -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("Dockerfile");
        Self::parse(&fs::read_to_string(file).unwrap())
    }

    pub(crate) fn last(&self) -> &Stage {
        self.stages.last().unwrap()
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        let joined = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
        let mut stages: Vec<Stage> = Vec::new();
        for line in joined.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (instruction, rest) = line.split_once(' ').unwrap();
            let words: Vec<String> = rest.split_whitespace().map(str::to_owned).collect();
            if instruction == "FROM" {
                let name =
                    if words.len() == 3 && words[1] == "AS" { words[2].clone() } else { String::new() };
                stages.push(Stage { from: words[0].clone(), name, ..Stage::default() });
                continue;
            }
            let stage = stages.last_mut().unwrap();
            match instruction {
                "WORKDIR" => stage.workdir = words[0].clone(),
                "USER" => stage.user = words[0].clone(),
                "ENTRYPOINT" => stage.entrypoint = serde_json::from_str(rest).unwrap(),
                "CMD" => stage.cmd = serde_json::from_str(rest).unwrap(),
                // Neither has an effect on a build. tests/cluster/harness/image_environment.rs reads ENV.
                "ENV" | "EXPOSE" => {}
                "RUN" => {
                    let command = words.iter().skip_while(|word| word.starts_with("--mount=type=cache,"));
                    stage.runs.push(command.cloned().collect::<Vec<_>>().join(" "));
                }
                "COPY" => match words[0].strip_prefix("--from=") {
                    Some(from) => {
                        assert_eq!(words.len(), 3, "{line}");
                        stage.copies_from.push((from.to_owned(), words[1].clone(), words[2].clone()));
                    }
                    None => {
                        let (into, what) = words.split_last().unwrap();
                        stage.copies.push((what.to_vec(), into.clone()));
                    }
                },
                _ => panic!("an instruction that these tests do not know: {line}"),
            }
        }
        Self { stages }
    }
}
