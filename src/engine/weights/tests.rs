//! Checkpoints of our own keep their bits; those of others give the logits
//! that transformers computes (`tests/fixtures/checkpoints.py`); damaged and
//! hostile ones are refused with the file and the tensor named.

use super::export::Export;
use super::folder::Weights;
use super::*;
use crate::base::failure::Class;
use crate::base::seed::Seed;
use crate::engine::ops::{Documents, Slots};
use safetensors::tensor::{Dtype, TensorView, serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use temp_dir::TempDir;

fn tiny() -> LlamaConfig {
    LlamaConfig {
        model_type: "llama".into(),
        vocab_size: 11,
        hidden_size: 8,
        intermediate_size: 12,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 4,
        max_position_embeddings: 16,
        rms_norm_eps: 1e-5,
        rope_theta: 1e4,
        rope_scaling: None,
        tie_word_embeddings: false,
    }
}

#[test]
fn weights_round_trip_bit_for_bit() {
    let model = Llama::random(tiny(), 0.1, Seed(1), &Device::flex());
    let bytes = save(&model).expect("saves");
    let again = load(tiny(), &bytes, &Device::flex()).expect("loads");
    assert_eq!(save(&again).expect("saves"), bytes);
}

#[test]
fn a_file_is_what_the_formats_library_writes() {
    let model = Llama::random(tiny(), 0.1, Seed(1), &Device::flex());
    let parameters = tiny().parameters().into_iter().zip(model.tensors());
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = parameters
        .map(|((name, rows, columns), tensor)| {
            let shape = if rows == 1 { vec![columns] } else { vec![rows, columns] };
            let values = tensor.into_data().try_to_vec::<f32>().expect("f32");
            (name, shape, values.iter().flat_map(|x| x.to_le_bytes()).collect())
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).expect("a view");
        (name.clone(), view)
    });
    let note = [("format".to_owned(), "pt".to_owned())].into();
    let theirs = serialize(views.collect::<BTreeMap<_, _>>(), Some(note)).expect("writes");
    assert!(save(&model).expect("saves") == theirs);
    let space = TempDir::new().expect("a folder");
    let path = space.path().join("model.safetensors");
    write(&model, &path).expect("writes");
    assert!(std::fs::read(&path).expect("reads") == theirs);
    let again = read(tiny(), &path, &Device::flex(), Precision::F32).expect("reads");
    assert!(save(&again).expect("saves") == theirs);
}

#[test]
fn damaged_and_foreign_weights_are_refused() {
    let model = Llama::random(tiny(), 0.1, Seed(1), &Device::flex());
    let bytes = save(&model).expect("saves");
    let error =
        |config, bytes: &[u8]| load(config, bytes, &Device::flex()).expect_err("refused").what;
    assert!(error(tiny(), &bytes[..bytes.len() - 3]).contains("not a whole safetensors file"));
    let deeper = LlamaConfig { num_hidden_layers: 3, ..tiny() };
    assert!(error(deeper, &bytes).contains("model.layers.2.input_layernorm.weight` is missing"));
    let tied = LlamaConfig { tie_word_embeddings: true, ..tiny() };
    assert!(error(tied, &bytes).contains("unexpected tensor `lm_head.weight`"));
    let wider = LlamaConfig { vocab_size: 12, ..tiny() };
    assert!(error(wider, &bytes).contains("makes it [12, 8]"));
}

const FIXTURES: [&str; 7] =
    ["grouped", "half", "head-100", "linear", "llama3", "torch", "torch-sharded"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints").join(name)
}

fn config_of(folder: &Path) -> LlamaConfig {
    let bytes = std::fs::read(folder.join("config.json")).expect("a configuration");
    LlamaConfig::from_json(&bytes, "`config.json`").expect("reads")
}

/// The folder's weights as one safetensors file.
fn gathered(folder: &Path) -> Outcome<Vec<u8>> {
    let space = TempDir::new().expect("a folder");
    let file = space.path().join("model.safetensors");
    Weights::find(folder)?.gather(&config_of(folder), &file, &mut |_, _| Ok(()))?;
    Ok(std::fs::read(file).expect("written"))
}

fn values(logits: Tensor<2>) -> Vec<f32> {
    logits.into_data().try_to_vec().expect("f32")
}

/// Logits after every token, all read at once.
fn whole(model: &Llama, ids: &Arc<[u32]>) -> Vec<f32> {
    let plan = model.plan(Documents::of_lengths([ids.len()]));
    values(model.to_logits(model.last_norm(model.hidden(ids, &plan))))
}

/// The same, one token after another through the cache.
fn step_by_step(model: &Llama, ids: &[u32]) -> Vec<f32> {
    let mut cache = model.cache(1, ids.len());
    let first = Arc::from(&ids[..1]);
    let mut all = values(model.prefill(&mut cache, &first, &Documents::of_lengths([1]), &[0]));
    for (i, id) in ids.iter().enumerate().skip(1) {
        let slots =
            Slots { capacity: ids.len(), of_row: [0].into(), lengths: [i as u32 + 1].into() };
        all.extend(values(model.decode(&mut cache, &[*id].into(), &slots)));
    }
    all
}

#[derive(serde::Deserialize)]
struct Expected {
    ids: Vec<u32>,
    logits: Vec<Vec<f32>>,
}

#[test]
fn checkpoints_of_others_give_the_logits_of_transformers() {
    for name in FIXTURES {
        let folder = fixture(name);
        let file = std::fs::read(folder.join("parity.json")).expect("expected logits");
        let expected: Expected = serde_json::from_slice(&file).expect("reads");
        let bytes = gathered(&folder).expect("reads");
        let model = load(config_of(&folder), &bytes, &Device::flex()).expect("loads");
        let ids: Arc<[u32]> = expected.ids.into();
        let logits = expected.logits.concat();
        for (how, ours) in
            [("at once", whole(&model, &ids)), ("by steps", step_by_step(&model, &ids))]
        {
            assert_eq!(ours.len(), logits.len());
            let worst = ours.iter().zip(&logits).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            // Measured: at most 9.3e-6, of logits up to 5.
            assert!(worst <= 3e-5, "`{name}` {how} is off by {worst}");
        }
    }
}

#[test]
fn scaling_of_positions_makes_a_difference_that_the_logits_show() {
    for name in ["linear", "llama3"] {
        let folder = fixture(name);
        let bytes = gathered(&folder).expect("reads");
        let logits = |config| {
            let model = load(config, &bytes, &Device::flex()).expect("loads");
            whole(&model, &(1..30).collect())
        };
        let with = logits(config_of(&folder));
        let without = logits(LlamaConfig { rope_scaling: None, ..config_of(&folder) });
        let most = with.iter().zip(&without).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(most > 1e-2, "`{name}` without scaling is off by {most} only");
    }
}

/// A copy of a fixture to be changed.
fn copy_of(name: &str) -> TempDir {
    let space = TempDir::new().expect("a folder");
    for entry in std::fs::read_dir(fixture(name)).expect("listed").flatten() {
        std::fs::copy(entry.path(), space.path().join(entry.file_name())).expect("copied");
    }
    space
}

/// What is said of a fixture with one file changed.
fn refused(name: &str, file: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let space = copy_of(name);
    let path = space.path().join(file);
    let mut bytes = std::fs::read(&path).expect("read");
    change(&mut bytes);
    std::fs::write(&path, bytes).expect("written");
    let failure = gathered(space.path()).expect_err("refused");
    assert_eq!(failure.class, Class::Input, "{failure:?}");
    failure.chain().join(": ")
}

/// Replaces a text by one of the same length.
fn replace(bytes: &mut [u8], old: &str, new: &str) {
    assert_eq!(old.len(), new.len());
    let at = bytes.windows(old.len()).position(|part| part == old.as_bytes()).expect("there");
    bytes[at..at + old.len()].copy_from_slice(new.as_bytes());
}

#[test]
fn damaged_safetensors_are_refused_with_their_file() {
    const FILE: &str = "model.safetensors";
    let cut = refused("grouped", FILE, |bytes| bytes.truncate(bytes.len() - 100));
    assert!(cut.contains("not a whole safetensors file") && cut.contains(FILE), "{cut}");
    for length in [0, 5, 8, 100] {
        let cut = refused("grouped", FILE, |bytes| bytes.truncate(length));
        assert!(cut.contains("not a whole safetensors file"), "{cut}");
    }
    let huge = refused("grouped", FILE, |bytes| bytes[..8].fill(0xff));
    assert!(huge.contains("its header would have"), "{huge}");
    let numbers = refused("grouped", FILE, |bytes| replace(bytes, "\"F32\"", "\"I32\""));
    assert!(numbers.contains("are I32; only F32, F16 and BF16"), "{numbers}");
    let shape = refused("grouped", FILE, |bytes| replace(bytes, "[32,16]", "[16,32]"));
    assert!(shape.contains("has the shape [16, 32]"), "{shape}");
    let name = refused("grouped", FILE, |bytes| replace(bytes, "model.norm", "model.gnom"));
    assert!(name.contains("missing: `model.norm.weight`"), "{name}");
    let deep = refused("grouped", "config.json", |bytes| {
        replace(bytes, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1");
    });
    assert!(deep.contains("of another kind of model: `model.layers.1."), "{deep}");
    assert!(deep.contains("and 6 more"), "{deep}");
}

#[test]
fn a_bad_index_is_refused_with_the_file_it_names() {
    const INDEX: &str = "model.safetensors.index.json";
    const SHARD: &str = "model-00004-of-00004.safetensors";
    let elsewhere = "../../../../tmp/abcd.safetensors";
    let outside = refused("llama3", INDEX, |bytes| replace(bytes, SHARD, elsewhere));
    assert!(outside.contains(elsewhere) && outside.contains("no path inside"), "{outside}");
    let absent = "model-00009-of-00004.safetensors";
    let missing = refused("llama3", INDEX, |bytes| replace(bytes, SHARD, absent));
    assert!(missing.contains(absent) && missing.contains("is not in the folder"), "{missing}");
    let other = "model-00001-of-00004.safetensors";
    let moved = refused("llama3", INDEX, |bytes| replace(bytes, SHARD, other));
    assert!(moved.contains("where the index says it is"), "{moved}");
    let torn = refused("llama3", INDEX, |bytes| bytes.truncate(40));
    assert!(torn.contains("is no index of weights"), "{torn}");
    let twice = refused("torch-sharded", "pytorch_model.bin.index.json", |bytes| {
        replace(bytes, "00002-of-00002", "00001-of-00002");
    });
    assert!(twice.contains("where the index says it is"), "{twice}");
}

#[test]
fn a_tensor_in_two_shards_is_refused() {
    let space = copy_of("llama3");
    let shard = |n: u32| space.path().join(format!("model-0000{n}-of-00004.safetensors"));
    std::fs::copy(shard(1), shard(2)).expect("copied");
    let failure = gathered(space.path()).expect_err("refused");
    assert!(failure.what.contains("00001-of-00004") && failure.what.contains("00002-of-00004"));
}

#[test]
fn a_pickle_that_asks_for_more_than_tensors_is_refused() {
    const FILE: &str = "pytorch_model.bin";
    let asked = refused("torch", FILE, |bytes| {
        replace(
            bytes,
            "ctorch._utils\n_rebuild_tensor_v2\n",
            "csubprocess\ncheck_output_of_what\n",
        );
    });
    assert!(asked.contains("`subprocess.check_output_of_what`"), "{asked}");
    let cut = refused("torch", FILE, |bytes| bytes.truncate(bytes.len() - 30));
    assert!(cut.contains("it is cut off or no zip archive"), "{cut}");
    let packed = refused("torch", FILE, |bytes| {
        let at = bytes.windows(4).rposition(|part| part == b"PK\x01\x02").expect("an entry");
        bytes[at + 10] = 8;
    });
    assert!(packed.contains("is compressed"), "{packed}");
    let wider = refused("torch", "config.json", |bytes| {
        replace(bytes, "\"vocab_size\": 32", "\"vocab_size\": 33");
    });
    assert!(wider.contains("has the shape [32, 16], `config.json` makes it [33, 16]"), "{wider}");
}

#[test]
fn a_tied_model_with_another_output_matrix_is_refused() {
    const FILE: &str = "pytorch_model-00002-of-00002.bin";
    let mut archive = std::fs::File::open(fixture("torch-sharded").join(FILE)).expect("there");
    let parts = super::zip::parts(&mut archive).expect("reads");
    let storages = parts.iter().filter(|part| part.name.contains("/data/"));
    // `lm_head.weight` was saved last.
    let head = storages.max_by_key(|part| part.start).expect("a storage").start as usize;
    let other = refused("torch-sharded", FILE, |bytes| bytes[head + 9] ^= 1);
    assert!(other.contains("is another matrix than the embedding"), "{other}");
}

#[test]
fn a_listener_may_end_the_gathering() {
    let (folder, space) = (fixture("grouped"), TempDir::new().expect("a folder"));
    let mut heard = Vec::new();
    let ended = Weights::find(&folder).expect("found").gather(
        &config_of(&folder),
        &space.path().join("weights"),
        &mut |done, all| {
            heard.push((done, all));
            if done > all / 2 { Err(Failure::interrupted()) } else { Ok(()) }
        },
    );
    assert_eq!(ended.expect_err("ended").class, Class::Interrupted);
    assert!(heard.len() > 2 && heard.is_sorted() && heard[0].0 == 0, "{heard:?}");
}

#[test]
fn no_change_of_a_byte_makes_a_torch_file_panic() {
    let whole = std::fs::read(fixture("torch").join("pytorch_model.bin")).expect("read");
    let space = copy_of("torch");
    let path = space.path().join("pytorch_model.bin");
    let mut refusals = 0;
    // The list of tensors is at the start, the directory at the end.
    let ends = (0..4000).chain(whole.len() - 2000..whole.len());
    for at in ends.step_by(3) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        std::fs::write(&path, bytes).expect("written");
        refusals += u32::from(gathered(space.path()).is_err());
    }
    assert!(refusals > 500, "{refusals}");
}

#[test]
fn what_is_exported_is_read_again_with_the_same_bits() {
    for (name, shard_bytes, files) in
        [("grouped", u64::MAX, 5), ("grouped", 4000, 12), ("half", 9000, 5), ("linear", 1, 23)]
    {
        let (folder, space) = (fixture(name), TempDir::new().expect("a folder"));
        let weights = space.path().join("weights");
        std::fs::write(&weights, gathered(&folder).expect("reads")).expect("written");
        let others = ["tokenizer.json", "generation_config.json"].iter();
        let others = others
            .filter_map(|file| Some(((*file).to_owned(), std::fs::read(folder.join(file)).ok()?)));
        let export = Export {
            config: config_of(&folder),
            weights: &weights,
            files: others.collect(),
            shard_bytes,
        };
        let to = space.path().join("some/where");
        let written = export.write(&to).expect("writes");
        assert_eq!(written.len(), files, "{name}: {written:?}");
        assert_eq!(config_of(&to), config_of(&folder));
        assert_eq!(gathered(&to).expect("reads"), gathered(&folder).expect("reads"));
        let again = export.write(&to).expect_err("refused");
        assert!(again.what.contains("is there already and not empty"), "{again:?}");
        assert_eq!(std::fs::read_dir(space.path().join("some")).expect("listed").count(), 1);
    }
}
