//! Every file of a test program is part of it: cargo finds programs, and a file beside `main.rs` that no
//! `mod` names would never be compiled.

use std::path::Path;

#[test]
fn every_file_of_a_test_program_is_a_module_of_it() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for program in ["local", "servers", "campaigns", "support"] {
        let root = if program == "support" { "mod.rs" } else { "main.rs" };
        let text = std::fs::read_to_string(tests.join(program).join(root)).unwrap();
        for entry in std::fs::read_dir(tests.join(program)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let module = name.strip_suffix(".rs").unwrap_or_else(|| panic!("{program}/{name} is no module"));
            let declared =
                text.lines().any(|line| line.trim_start_matches("pub(crate) ") == format!("mod {module};"));
            assert!(name == root || declared, "{program}/{root} does not declare {module}");
        }
    }
}
