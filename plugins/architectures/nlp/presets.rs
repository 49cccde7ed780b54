//! The presets of `nlp`.

use onward_core::plugin::preset::Preset;

pub(super) const PRESETS: &[Preset] = &[
    Preset {
        name: "window",
        about: "three layers of 1000 units on a window of 10 characters, negatives from \
                the model's own prediction",
        settings: r#"
            data = "fables"
            epochs = 10
            batch = 128
            sampler = { name = "next_token", negatives = "predicted" }
    "#,
    },
    Preset {
        name: "hinton",
        about: "as in Hinton 2022: strings of 100 characters of Aesop's fables \
                (--data text:FILE), three layers of 2000 units",
        settings: r#"
            data = { name = "text", prepare = "hinton" }
            epochs = 10
            batch = 128
            hidden = [2000, 2000, 2000]
            candidates = 0
            sampler = { name = "next_token", negatives = "predicted" }
        "#,
    },
    Preset {
        name: "book",
        about: "for texts of up to half a megabyte (--data text:FILE): hashed ends of the \
                text and its lines as inputs, a local classifier",
        settings: r#"
            data = { name = "text", before = 200 }
            epochs = 3
            batch = 64
            hidden = [1000]
            goodness = "projection"
            loss = "cross_entropy"
            temperature = 0.001
            optimiser = "sparse_adam"
            lr = 0.001
            samples = 1024
            sampler = { name = "plain", ngrams = 8, words = 1, buckets = 4096, layout = true }
        "#,
    },
    Preset {
        name: "corpus",
        about: "for larger texts (--data text:FILE): as book, in byte pairs, with shorter \
                hashed ends and more of the text before",
        settings: r#"
            data = { name = "text", tokenizer = "bpe", window = 3, before = 97 }
            epochs = 2
            batch = 128
            hidden = [500]
            goodness = "projection"
            loss = "cross_entropy"
            temperature = 0.002
            optimiser = "sparse_adam"
            lr = 0.0002
            samples = 1024

            [sampler]
            name = "plain"
            ngrams = 3
            words = 2
            buckets = 16384
            layout = true
            recent = 0.97
        "#,
    },
    Preset {
        name: "characters",
        about: "for larger texts in characters (--data text:FILE): as corpus, with a longer \
                window and longer hashed ends",
        settings: r#"
            data = { name = "text", window = 10, before = 110 }
            epochs = 2
            batch = 128
            hidden = [500]
            goodness = "projection"
            loss = "cross_entropy"
            temperature = 0.002
            optimiser = "sparse_adam"
            lr = 0.0002
            samples = 1024

            [sampler]
            name = "plain"
            ngrams = 6
            words = 2
            buckets = 16384
            layout = true
            recent = 0.98
        "#,
    },
    Preset {
        name: "contrast",
        about: "positive and negative views for texts of a megabyte and more (--data \
                text:FILE): few epochs, Adam",
        settings: r#"
            data = "text"
            epochs = 4
            batch = 128
            optimiser = "adam"
            lr = 0.001
            temperature = 0.2
            candidates = 5
            sampler = { name = "next_token", negatives = "predicted" }
        "#,
    },
];
