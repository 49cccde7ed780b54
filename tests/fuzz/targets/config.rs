//! `config.toml` and `--set`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use onward::plugin::config::Config;
use onward::plugin::source::Source;

fuzz_target!(|text: &str| {
    let mut sources = vec![Source::assignment(text)];
    if let Ok(table) = text.parse() {
        let origin = "a file".into();
        sources.push(Ok(Source { origin, table }));
    }
    for source in sources.into_iter().flatten() {
        for architecture in ["progressive", "recurrent", "nlp"] {
            let config = Config::resolve(architecture, None, vec![source.clone()]);
            // What is complete is read again as it was.
            if let Ok(config) = config {
                let table = config.to_toml().parse().expect("TOML");
                let origin = "itself".into();
                let again =
                    Config::resolve(architecture, Some("none"), vec![Source { origin, table }]);
                assert_eq!(again.expect("a complete configuration"), config);
            }
        }
    }
});
