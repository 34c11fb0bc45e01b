//! Which tokens of a sequence are global, where the architecture has such tokens (Longformer).

use bertha_nn::{Batch, GlobalTokens};

use crate::heads::question_len;
use crate::{Config, ForwardOptions, Head, ModelError};

/// A choice of global tokens. As `global_tokens` in config.json it holds for every use of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GlobalRule {
    /// As `transformers`: the first token of a sequence that is classified, those of the question where an answer is
    /// sought, else none.
    #[default]
    ByHead,
    /// None.
    None,
    /// The first.
    First,
    /// Those before the first separator, the first token at least.
    Question,
}

impl GlobalRule {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::ByHead, Self::None, Self::First, Self::Question];

    /// Its name in config.json.
    pub fn name(self) -> &'static str {
        match self {
            Self::ByHead => "by-head",
            Self::None => "none",
            Self::First => "first",
            Self::Question => "question",
        }
    }

    /// What the configuration says, by default [`GlobalRule::ByHead`].
    pub(crate) fn read(config: &Config) -> Result<Self, ModelError> {
        let name = config.text(KEY, Some(Self::ByHead.name()))?;
        let mut rules = Self::ALL.into_iter();
        rules.find(|rule| rule.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            config.error(KEY, format!("one of {names}"))
        })
    }

    /// The global tokens of a batch: those that are asked for, else those of the rule. `rule` is `None` where the
    /// architecture has none.
    pub(crate) fn tokens(
        rule: Option<Self>,
        model_type: &'static str,
        head: Head,
        separator: u32,
        batch: &Batch,
        options: &ForwardOptions<'_>,
    ) -> Result<Option<GlobalTokens>, ModelError> {
        let Some(rule) = rule else {
            return match options.global_tokens {
                None => Ok(None),
                Some(_) => Err(ModelError::NoGlobalTokens { model_type }),
            };
        };
        if let Some(places) = options.global_tokens {
            return Ok(Some(GlobalTokens::new(batch, places.to_vec())?));
        }
        let question = |at_least: usize| {
            let sequence = |i| {
                let ids = &batch.input_ids()[batch.range(i)];
                (0..question_len(ids, separator).saturating_sub(1).max(at_least) as u32).collect()
            };
            (0..batch.len()).map(sequence).collect()
        };
        let places: Vec<Vec<u32>> = match (rule, head) {
            (Self::First, _) | (Self::ByHead, Head::SequenceClassification) => {
                vec![vec![0]; batch.len()]
            }
            (Self::Question, _) => question(1),
            (Self::ByHead, Head::QuestionAnswering) => question(0),
            (Self::None | Self::ByHead, _) => return Ok(None),
        };
        Ok(Some(GlobalTokens::new(batch, places)?))
    }
}

/// The key of config.json.
pub(crate) const KEY: &str = "global_tokens";

impl Config {
    /// Sets which tokens are global.
    pub fn set_global_tokens(&mut self, rule: GlobalRule) {
        self.set(KEY, rule.name());
    }
}

impl std::str::FromStr for GlobalRule {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let mut rules = Self::ALL.into_iter();
        rules.find(|rule| rule.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("`{name}` is none of {names}")
        })
    }
}
