//! Reads a sentence-transformers folder: which modules make a text into an embedding.
//!
//! `modules.json` lists the modules in order, each with its folder and its class; every module's
//! `config.json` says the rest. The classes moved between versions, so only the last part of their
//! path counts. A folder without `modules.json` is a plain model: its tokens are then averaged, and
//! nothing is normalised, as sentence-transformers does.
//! <https://sbert.net/docs/package_reference/sentence_transformer/modules.html>

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use bertha_nn::{Activation, Pooling};
use serde_json::Value;

use crate::TaskError;
use crate::json::{JsonObject, read_list_if_present};
use crate::limit::{LimitSource, tokenizer_limit};

/// What a folder says about itself.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    /// The folder of the model and its tokenizer.
    pub(crate) transformer: PathBuf,
    /// What follows the model; the pooling comes first.
    pub(crate) modules: Vec<Module>,
    /// Whether the folder lists its modules; otherwise they are the usual ones of a plain model.
    pub(crate) has_modules: bool,
    /// Whether texts are lower-cased before they are tokenized.
    pub(crate) lower_case: bool,
    /// The length limit that the folder sets, if it sets one.
    pub(crate) limit: Option<(usize, LimitSource)>,
    pub(crate) prompts: Prompts,
}

/// A step from the token vectors to the embedding.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Module {
    Pooling {
        modes: Vec<Pooling>,
        include_prompt: bool,
    },
    Dense(DenseConfig),
    Normalize,
}

/// A fully connected layer: its folder and its sizes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DenseConfig {
    pub(crate) dir: PathBuf,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) bias: bool,
    pub(crate) activation: Activation,
}

/// The prompts of a folder, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prompts {
    file: PathBuf,
    by_name: BTreeMap<String, String>,
    default: Option<String>,
}

/// Where `max_seq_length` and `do_lower_case` may stand, the current name first.
const TRANSFORMER_CONFIGS: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// The keys of `1_Pooling/config.json` before version 6, in the order of concatenation.
const POOLING_FLAGS: [(&str, Pooling); 6] = [
    ("pooling_mode_cls_token", Pooling::Cls),
    ("pooling_mode_max_tokens", Pooling::Max),
    ("pooling_mode_mean_tokens", Pooling::Mean),
    ("pooling_mode_mean_sqrt_len_tokens", Pooling::MeanSqrtLen),
    ("pooling_mode_weightedmean_tokens", Pooling::WeightedMean),
    ("pooling_mode_lasttoken", Pooling::LastToken),
];

impl Recipe {
    /// Reads the folder.
    pub(crate) fn read(dir: &Path) -> Result<Self, TaskError> {
        let list = read_list_if_present(&dir.join("modules.json"))?;
        let (transformer, modules) = match &list {
            Some(list) => read_modules(dir, list)?,
            None => {
                let modes = vec![Pooling::Mean];
                let pooling = Module::Pooling {
                    modes,
                    include_prompt: true,
                };
                (dir.to_path_buf(), vec![pooling])
            }
        };
        let settings = transformer_settings(&transformer)?;
        let limit = match settings.size("max_seq_length")? {
            Some(tokens) => {
                let file = settings.file().display().to_string();
                let key = "max_seq_length";
                Some((tokens, LimitSource::File { file, key }))
            }
            None => tokenizer_limit(&transformer)?,
        };
        Ok(Self {
            has_modules: list.is_some(),
            lower_case: settings.flag("do_lower_case")?.unwrap_or(false),
            limit,
            prompts: Prompts::read(dir)?,
            modules,
            transformer,
        })
    }
}

/// The folder of the model and its tokenizer: in older sentence-transformers folders, one below.
///
/// # Errors
/// When modules.json, or what it names, is not as it should be.
pub fn transformer_dir(dir: impl AsRef<Path>) -> Result<PathBuf, TaskError> {
    Ok(Recipe::read(dir.as_ref())?.transformer)
}

fn transformer_settings(dir: &Path) -> Result<JsonObject, TaskError> {
    for name in TRANSFORMER_CONFIGS {
        if let Some(settings) = JsonObject::read_if_present(dir.join(name))? {
            return Ok(settings);
        }
    }
    JsonObject::read_or_empty(dir.join(TRANSFORMER_CONFIGS[0]))
}

fn read_modules(dir: &Path, list: &[Value]) -> Result<(PathBuf, Vec<Module>), TaskError> {
    let file = dir.join("modules.json");
    let mut transformer = None;
    let mut modules: Vec<Module> = Vec::new();
    for (index, item) in list.iter().enumerate() {
        let Value::Object(keys) = item else {
            return Err(TaskError::NotJson {
                file,
                expected: "list of objects",
                reason: format!("item {index} is {item}"),
            });
        };
        let item = JsonObject::inside(&file, keys.clone());
        let Some(class) = item.text("type")? else {
            return Err(item.error("type", "a module's class"));
        };
        let path = module_path(dir, &item)?;
        let refuse = |expected| {
            Err(TaskError::Module {
                file: file.clone(),
                index,
                found: class.to_owned(),
                expected,
            })
        };
        let name = class.rsplit('.').next().unwrap_or(class).to_lowercase();
        match (name.as_str(), transformer.is_some(), modules.is_empty()) {
            ("transformer", false, true) => transformer = Some(path),
            (_, false, _) => return refuse("a Transformer first"),
            ("pooling", true, true) => modules.push(read_pooling(&path)?),
            (_, true, true) => return refuse("a Pooling after the Transformer"),
            ("dense", true, false) => modules.push(Module::Dense(read_dense(path)?)),
            ("normalize", true, false) => {
                sentence_level(&JsonObject::read_or_empty(path.join("config.json"))?)?;
                modules.push(Module::Normalize);
            }
            // Only training drops anything.
            ("dropout", true, false) => {}
            _ => return refuse("Dense, Normalize or Dropout after the Pooling"),
        }
    }
    match transformer {
        Some(transformer) if !modules.is_empty() => Ok((transformer, modules)),
        _ => Err(TaskError::NotJson {
            file,
            expected: "list of modules",
            reason: format!(
                "found {} modules, expected at least a Transformer and a Pooling",
                list.len()
            ),
        }),
    }
}

/// A module's folder, which can only be below the model's.
fn module_path(dir: &Path, item: &JsonObject) -> Result<PathBuf, TaskError> {
    let path = Path::new(item.text("path")?.unwrap_or(""));
    let inside = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if !path.components().all(inside) {
        return Err(item.error("path", "a folder below the model's"));
    }
    Ok(dir.join(path))
}

fn read_pooling(dir: &Path) -> Result<Module, TaskError> {
    let config = JsonObject::read_or_empty(dir.join("config.json"))?;
    let modes = match config.get("pooling_mode") {
        Some(Value::String(name)) => vec![pooling_mode(&config, name)?],
        Some(Value::Array(names)) if !names.is_empty() => names
            .iter()
            .map(|name| pooling_mode(&config, name.as_str().unwrap_or_default()))
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(config.error("pooling_mode", "a name or a list of names")),
        None => {
            let mut modes = Vec::new();
            for (key, mode) in POOLING_FLAGS {
                if config.flag(key)?.unwrap_or(false) {
                    modes.push(mode);
                }
            }
            if modes.is_empty() {
                modes.push(Pooling::Mean);
            }
            modes
        }
    };
    Ok(Module::Pooling {
        modes,
        include_prompt: config.flag("include_prompt")?.unwrap_or(true),
    })
}

fn pooling_mode(config: &JsonObject, name: &str) -> Result<Pooling, TaskError> {
    // The one mode whose name in the files is longer than in the literature.
    let short = name.strip_suffix("_tokens").unwrap_or(name);
    short.parse().map_err(|_| {
        let known: Vec<_> = Pooling::ALL.into_iter().map(Pooling::name).collect();
        config.error("pooling_mode", format!("of {}", known.join(", ")))
    })
}

fn read_dense(dir: PathBuf) -> Result<DenseConfig, TaskError> {
    let config = JsonObject::read_or_empty(dir.join("config.json"))?;
    sentence_level(&config)?;
    if config.flag("use_residual")?.unwrap_or(false) {
        return Err(config.error(
            "use_residual",
            "false: residual dense layers are not supported",
        ));
    }
    let size = |key| {
        let size = config.size(key)?;
        size.ok_or_else(|| config.error(key, "the width of a layer"))
    };
    let activation = match config.text("activation_function")? {
        Some(path) => match path.rsplit('.').next().unwrap_or(path) {
            "Identity" => Activation::None,
            "Tanh" => Activation::Tanh,
            "ReLU" => Activation::Relu,
            "GELU" => Activation::GeluErf,
            "SiLU" => Activation::Silu,
            _ => {
                let expected = "torch.nn's Identity, Tanh, ReLU, GELU or SiLU";
                return Err(config.error("activation_function", expected));
            }
        },
        None if config.contains("activation_function") => Activation::None,
        None => Activation::Tanh,
    };
    Ok(DenseConfig {
        inputs: size("in_features")?,
        outputs: size("out_features")?,
        bias: config.flag("bias")?.unwrap_or(true),
        activation,
        dir,
    })
}

/// Modules after the pooling work on the sentence's vector; some files say so, none may differ.
fn sentence_level(config: &JsonObject) -> Result<(), TaskError> {
    for key in ["module_input_name", "module_output_name"] {
        if config
            .text(key)?
            .is_some_and(|name| name != "sentence_embedding")
        {
            return Err(config.error(key, "\"sentence_embedding\""));
        }
    }
    Ok(())
}

impl Prompts {
    fn read(dir: &Path) -> Result<Self, TaskError> {
        let config = JsonObject::read_or_empty(dir.join("config_sentence_transformers.json"))?;
        let mut by_name = BTreeMap::new();
        match config.get("prompts") {
            None => {}
            Some(Value::Object(prompts)) => {
                for (name, prompt) in prompts {
                    let Some(prompt) = prompt.as_str() else {
                        return Err(config.error("prompts", "a map from names to strings"));
                    };
                    by_name.insert(name.clone(), prompt.to_owned());
                }
            }
            Some(_) => return Err(config.error("prompts", "a map from names to strings")),
        }
        let default = config.text("default_prompt_name")?.map(str::to_owned);
        if default
            .as_ref()
            .is_some_and(|name| !by_name.contains_key(name))
        {
            return Err(config.error("default_prompt_name", "a name of `prompts`"));
        }
        Ok(Self {
            file: config.file().to_path_buf(),
            by_name,
            default,
        })
    }

    /// The prompt of a name, or the folder's default one, or nothing.
    pub(crate) fn get(&self, name: Option<&str>) -> Result<&str, TaskError> {
        let Some(name) = name.or(self.default.as_deref()) else {
            return Ok("");
        };
        let prompt = self.by_name.get(name).map(String::as_str);
        prompt.ok_or_else(|| TaskError::UnknownPrompt {
            file: self.file.clone(),
            name: name.to_owned(),
            known: match self.by_name.is_empty() {
                true => "there are none in the file".to_owned(),
                false => {
                    let names: Vec<_> = self.by_name.keys().map(String::as_str).collect();
                    format!("known are {}", names.join(", "))
                }
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of the given files.
    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        dir
    }

    fn read(files: &[(&str, &str)]) -> Result<Recipe, TaskError> {
        Recipe::read(folder(files).path())
    }

    fn refused(files: &[(&str, &str)], parts: &[&str]) {
        let text = read(files).unwrap_err().to_string();
        for part in parts {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    const PLAIN: &str = r#"[{"idx":0,"path":"","type":"sentence_transformers.models.Transformer"},
        {"idx":1,"path":"1_Pooling","type":"sentence_transformers.models.Pooling"}]"#;

    fn mean(include_prompt: bool) -> Module {
        let modes = vec![Pooling::Mean];
        Module::Pooling {
            modes,
            include_prompt,
        }
    }

    #[test]
    fn a_folder_without_modules_averages_and_does_not_normalise() {
        let recipe = read(&[]).unwrap();
        assert_eq!(recipe.modules, [mean(true)]);
        assert_eq!(recipe.limit, None);
        assert!(!recipe.lower_case);
        assert_eq!(recipe.prompts.get(None).unwrap(), "");
    }

    #[test]
    fn module_classes_of_every_version() {
        let modules = r#"[
            {"path":"0_Transformer","type":"sentence_transformers.base.modules.transformer.Transformer"},
            {"path":"1_Pooling","type":"sentence_transformers.sentence_transformer.modules.pooling.POOLING"},
            {"path":"2_Dense","type":"sentence_transformers.models.Dense","kwargs":[]},
            {"path":"3_Dropout","type":"sentence_transformers.models.Dropout"},
            {"path":"4_Normalize","type":"normalize"}]"#;
        let dense = r#"{"in_features":12,"out_features":7,"bias":false,
            "activation_function":"torch.nn.modules.activation.ReLU"}"#;
        let dir = folder(&[
            ("modules.json", modules),
            (
                "1_Pooling/config.json",
                r#"{"pooling_mode":["cls","mean_sqrt_len_tokens"]}"#,
            ),
            ("2_Dense/config.json", dense),
            (
                "0_Transformer/sentence_bert_config.json",
                r#"{"max_seq_length":77}"#,
            ),
        ]);
        let recipe = Recipe::read(dir.path()).unwrap();
        assert_eq!(recipe.transformer, dir.path().join("0_Transformer"));
        assert_eq!(recipe.limit.unwrap().0, 77);
        let [
            Module::Pooling { modes, .. },
            Module::Dense(dense),
            Module::Normalize,
        ] = &recipe.modules[..]
        else {
            panic!("{:?}", recipe.modules);
        };
        assert_eq!(modes[..], [Pooling::Cls, Pooling::MeanSqrtLen]);
        assert_eq!((dense.inputs, dense.outputs, dense.bias), (12, 7, false));
        assert_eq!(dense.activation, Activation::Relu);
    }

    #[test]
    fn pooling_in_old_words_and_by_default() {
        let pooling = |config: &str| {
            let recipe = read(&[("modules.json", PLAIN), ("1_Pooling/config.json", config)]);
            recipe.unwrap().modules.remove(0)
        };
        assert_eq!(pooling("{}"), mean(true));
        assert_eq!(pooling(r#"{"include_prompt":false}"#), mean(false));
        let flags = r#"{"pooling_mode_mean_tokens":true,"pooling_mode_lasttoken":true,
            "pooling_mode_cls_token":true,"pooling_mode_max_tokens":false}"#;
        let Module::Pooling { modes, .. } = pooling(flags) else {
            panic!();
        };
        assert_eq!(modes, [Pooling::Cls, Pooling::Mean, Pooling::LastToken]);
        let none = r#"{"pooling_mode_mean_tokens":false,"pooling_mode_cls_token":false}"#;
        assert_eq!(pooling(none), mean(true));
    }

    #[test]
    fn dense_without_an_activation_key_is_tanh_and_null_is_none() {
        let modules = r#"[{"path":"","type":"Transformer"},{"path":"1_Pooling","type":"Pooling"},
            {"path":"2_Dense","type":"Dense"}]"#;
        let activation = |more: &str| {
            let config = format!(r#"{{"in_features":2,"out_features":3{more}}}"#);
            let recipe = read(&[("modules.json", modules), ("2_Dense/config.json", &config)])?;
            match &recipe.modules[1] {
                Module::Dense(dense) => Ok::<_, TaskError>(dense.activation),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(activation("").unwrap(), Activation::Tanh);
        assert_eq!(
            activation(r#","activation_function":null"#).unwrap(),
            Activation::None
        );
        let error = activation(r#","activation_function":"my.Own""#)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("my.Own") && error.contains("Tanh"),
            "{error}"
        );
        let error = activation(r#","use_residual":true"#)
            .unwrap_err()
            .to_string();
        assert!(error.contains("use_residual"), "{error}");
    }

    #[test]
    fn settings_prompts_and_legacy_names() {
        let recipe = read(&[
            ("sentence_distilbert_config.json", r#"{"max_seq_length":null,"do_lower_case":true}"#),
            ("tokenizer_config.json", r#"{"model_max_length":128}"#),
            (
                "config_sentence_transformers.json",
                r#"{"prompts":{"query":"query: ","passage":"passage: "},"default_prompt_name":"query"}"#,
            ),
        ])
        .unwrap();
        assert!(recipe.lower_case);
        assert_eq!(recipe.limit.unwrap().0, 128);
        assert_eq!(recipe.prompts.get(None).unwrap(), "query: ");
        assert_eq!(recipe.prompts.get(Some("passage")).unwrap(), "passage: ");
        let error = recipe.prompts.get(Some("no")).unwrap_err().to_string();
        for part in [
            "config_sentence_transformers.json",
            "\"no\"",
            "passage, query",
        ] {
            assert!(error.contains(part), "{part} in {error}");
        }
    }

    #[test]
    fn what_bertha_does_not_run_is_named() {
        let with = |second: &str| {
            format!(r#"[{{"path":"","type":"a.Transformer"}},{{"path":"1","type":"{second}"}}]"#)
        };
        refused(
            &[("modules.json", &with("models.CNN"))],
            &["modules.json", "module 1", "models.CNN"],
        );
        refused(
            &[("modules.json", r#"[{"path":"","type":"models.BoW"}]"#)],
            &["module 0", "BoW"],
        );
        refused(&[("modules.json", "[]")], &["modules.json", "0 modules"]);
        refused(
            &[("modules.json", "{}")],
            &["modules.json", "list", "an object"],
        );
        refused(&[("modules.json", "[1]")], &["modules.json", "item 0 is 1"]);
        refused(&[("modules.json", "[{}]")], &["`type` is missing"]);
        refused(
            &[(
                "modules.json",
                r#"[{"path":"../other","type":"Transformer"}]"#,
            )],
            &["`path`", "../other"],
        );
        refused(
            &[
                ("modules.json", PLAIN),
                ("1_Pooling/config.json", r#"{"pooling_mode":"median"}"#),
            ],
            &["1_Pooling", "median", "mean_sqrt_len"],
        );
        refused(
            &[
                ("modules.json", PLAIN),
                ("1_Pooling/config.json", r#"{"pooling_mode_cls_token":1}"#),
            ],
            &["pooling_mode_cls_token", "true or false"],
        );
        refused(
            &[("sentence_bert_config.json", r#"{"max_seq_length":0}"#)],
            &["sentence_bert_config.json", "max_seq_length"],
        );
        refused(
            &[(
                "config_sentence_transformers.json",
                r#"{"default_prompt_name":"q"}"#,
            )],
            &["default_prompt_name", "\"q\""],
        );
        refused(
            &[("config_sentence_transformers.json", "{")],
            &["config_sentence_transformers.json"],
        );
    }
}
