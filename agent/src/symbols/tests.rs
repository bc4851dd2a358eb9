//! Names of real files: this test's own program, and small ones that the C compiler makes here.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;

use super::*;

/// Names of `module` as somebody who waits for them gets them.
fn names(places: &Places, module: &Module, address: u64) -> (Vec<Frame>, Names) {
    let mut reader = reader(places);
    let module = Arc::new(module.clone());
    let frames = reader.frames(&module, address);
    let names = reader.shared.known().names.get(&module).cloned();
    (frames, names.expect("it was looked for"))
}

fn reader(places: &Places) -> Reader {
    let shared = Symbols::of(Places::default()).shared.clone();
    Reader { places: places.clone(), shared, open: Vec::new() }
}

fn build_id(path: &Path) -> Vec<u8> {
    elf::Elf::read(&File::open(path).expect("it can be opened")).expect("it is a program").build_id
}

/// The part of a program that tests look up. Kept as it is, so that its lines are where they are expected.
const SOURCE: &str = "\
static inline __attribute__((always_inline)) int innermost(int x) {
    return x * 31;
}
__attribute__((noinline)) int outer(int x) {
    int y = innermost(x) + 1;
    __asm__ volatile(\"\" : : \"r\"(y) : \"memory\");
    return y;
}
int main(int argc, char **argv) { return outer(argc); }
";

/// A folder with `prog`, which has debug information, and where `outer` is in it. `None`: there is no C compiler or no
/// binutils here, which is said.
struct Program {
    folder: tempfile::TempDir,
    path: PathBuf,
    outer: u64,
}

fn tool(program: &str, args: &[&str], within: &Path) -> Option<Vec<u8>> {
    match Command::new(program).args(args).current_dir(within).output() {
        Ok(output) => {
            assert!(
                output.status.success(),
                "{program} {args:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            Some(output.stdout)
        }
        Err(error) => {
            // As the end-to-end tests do where a program of somebody else's is missing.
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{program} is needed: {error}");
            eprintln!("not run: {program} is not installed here ({error})");
            None
        }
    }
}

impl Program {
    fn with(flags: &[&str]) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        std::fs::write(folder.path().join("prog.c"), SOURCE).expect("it can be written");
        let build = [&["-g", "-O1", "prog.c", "-o", "prog"], flags].concat();
        tool("cc", &build, folder.path())?;
        let symbols = String::from_utf8(tool("nm", &["prog"], folder.path())?).expect("nm writes text");
        let outer =
            symbols.lines().find_map(|line| line.strip_suffix(" T outer")).expect("it has the function");
        let outer = u64::from_str_radix(outer, 16).expect("nm writes addresses");
        let path = folder.path().join("prog");
        Some(Self { folder, path, outer })
    }

    fn module(&self) -> Module {
        Module { path: self.path.display().to_string(), build_id: build_id(&self.path) }
    }

    /// Functions from the innermost as `function file:line`, wherever in `outer` they are the most.
    fn deepest(&self, places: &Places, module: &Module) -> (Vec<String>, Names) {
        let all = (0..24).map(|offset| names(places, module, self.outer + offset));
        let (frames, names) = all.max_by_key(|(frames, _)| frames.len()).expect("there are some");
        let text = |frame: &Frame| {
            let file = frame.file.as_deref().and_then(|file| file.rsplit('/').next()).unwrap_or("–");
            let line = frame.line.map_or("–".to_owned(), |line| line.to_string());
            format!("{} {file}:{line}", frame.function.as_deref().unwrap_or("–"))
        };
        assert!(frames.iter().rev().skip(1).all(|frame| frame.inlined), "{frames:?}");
        (frames.iter().map(text).collect(), names)
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

const WHOLE: [&str; 2] = ["innermost prog.c:2", "outer prog.c:5"];

/// A program of Rust: its legacy or newer names lose their hash, and its lines are those of the source.
#[test]
fn this_tests_own_functions_have_their_names_and_lines() {
    #[inline(never)]
    fn looked_up(x: u32) -> u32 {
        std::hint::black_box(x) + 1
    }
    let line = line!() - 3;
    let exe = std::env::current_exe().expect("it runs from a file");
    let maps = std::fs::read_to_string("/proc/self/maps").expect("it can be read");
    let mapped = maps.lines().find(|line| line.ends_with(&exe.display().to_string())).expect("it is mapped");
    let base = u64::from_str_radix(mapped.split('-').next().unwrap_or(""), 16).expect("an address");
    let address = looked_up as fn(u32) -> u32 as usize as u64 - base;
    let module = Module { path: exe.display().to_string(), build_id: build_id(&exe) };
    let (frames, names) = names(&Places::default(), &module, address);
    assert_eq!(names, Names::Lines);
    let last = frames.last().expect("there is one");
    let function = last.function.as_deref().unwrap_or("");
    assert!(function.ends_with("own_functions_have_their_names_and_lines::looked_up"), "{frames:?}");
    assert!(
        last.file.as_deref().is_some_and(|file| file.ends_with("agent/src/symbols/tests.rs")),
        "{frames:?}"
    );
    assert!(last.line.is_some_and(|at| (line..line + 3).contains(&at)), "{frames:?} is not at {line}");
    assert_eq!(last.module.as_deref(), Some(&module));
}

#[test]
fn inlined_functions_are_told_from_the_innermost() {
    let Some(program) = Program::with(&["-Wl,--build-id"]) else { return };
    assert_eq!(
        program.deepest(&Places::default(), &program.module()),
        (WHOLE.map(str::to_owned).to_vec(), Names::Lines)
    );
    // Nothing is at these, and nothing is made up.
    for address in [0, 1, u64::MAX, program.outer + (1 << 40)] {
        let (frames, _) = names(&Places::default(), &program.module(), address);
        assert!(frames.len() == 1 && frames[0].function.is_none() && frames[0].file.is_none(), "{frames:?}");
    }
}

#[test]
fn compressed_debug_information_is_read_too() {
    let Some(program) = Program::with(&["-Wl,--build-id", "-gz"]) else { return };
    assert_eq!(program.deepest(&Places::default(), &program.module()).0, WHOLE);
}

/// As production images are: what is in the target is stripped, and the debug file is only here.
#[test]
fn a_stripped_program_has_its_lines_from_a_debug_file_or_an_unstripped_copy_of_its_build() {
    let Some(program) = Program::with(&["-Wl,--build-id"]) else { return };
    let (folder, id) = (program.folder.path().to_owned(), build_id(&program.path));
    let sort = format!(".build-id/{}", hex(&id[..1]));
    for made in ["by-id", "any/deep/er", "copy", "other", "empty"] {
        std::fs::create_dir_all(folder.join(made)).expect("it can be made");
    }
    std::fs::create_dir_all(folder.join("by-id").join(&sort)).expect("it can be made");
    let by_id = folder.join("by-id").join(&sort).join(format!("{}.debug", hex(&id[1..])));
    let by_id = by_id.display().to_string();
    if tool("objcopy", &["--only-keep-debug", "prog", &by_id], &folder).is_none() {
        return;
    }
    tool("objcopy", &["--only-keep-debug", "prog", "any/deep/er/whatever"], &folder);
    std::fs::copy(&program.path, folder.join("copy/prog-1.2.3")).expect("it can be copied");
    std::fs::write(folder.join("copy/notes.txt"), "no program").expect("it can be written");
    tool("cc", &["-g", "-O1", "-DOTHER=1", "-Wl,--build-id=0x1234", "prog.c", "-o", "other/prog"], &folder);
    let module = program.module();
    tool("strip", &["prog"], &folder);
    let with = |dirs: &[&str]| Places {
        debug_dirs: dirs.iter().map(|dir| folder.join(dir)).collect(),
        ..Places::default()
    };
    for dirs in [&["by-id"][..], &["any"], &["copy"], &["not-there", "other", "copy"]] {
        let (frames, names) = program.deepest(&with(dirs), &module);
        assert_eq!((frames, names), (WHOLE.map(str::to_owned).to_vec(), Names::Lines), "{dirs:?}");
    }
    for dirs in [&[][..], &["empty"], &["other"], &["not-there"]] {
        let (frames, names) = program.deepest(&with(dirs), &module);
        assert_eq!(frames, ["– –:–"], "{dirs:?}");
        let said = format!("{} (build-id {}) is stripped", module.path, hex(&id));
        assert_eq!(names, Names::Missing(said), "{dirs:?}");
    }
}

#[test]
fn a_file_of_another_build_gives_no_names() {
    let Some(program) = Program::with(&["-Wl,--build-id"]) else { return };
    let other = Module { build_id: vec![1; 20], ..program.module() };
    let (frames, names) = program.deepest(&Places::default(), &other);
    assert_eq!(frames, ["– –:–"]);
    let Names::Missing(why) = names else { panic!("{names:?}") };
    let theirs = hex(&build_id(&program.path));
    assert!(why.ends_with(&format!("prog is of another build: its build-id is {theirs}")), "{why}");
    // Without a build-id nobody can tell, however alike they are.
    let Some(unmarked) = Program::with(&["-Wl,--build-id=none"]) else { return };
    assert_eq!(unmarked.module().build_id, Vec::<u8>::new());
    let (frames, names) = unmarked.deepest(&Places::default(), &unmarked.module());
    assert_eq!(frames, ["– –:–"]);
    assert!(
        matches!(&names, Names::Missing(why) if why.contains("has no build-id, so it may be")),
        "{names:?}"
    );
}

/// Without a build-id, what the target's own process runs is known to be what it runs.
#[test]
fn without_a_build_id_the_running_program_itself_is_read() {
    let exe = std::env::current_exe().expect("it runs from a file").display().to_string();
    let places = Places { process: Some(std::process::id()), ..Places::default() };
    // This one has a build-id: a module that claims to have none is another.
    let (_, said) = names(&places, &Module { path: exe.clone(), build_id: vec![] }, 0);
    assert!(matches!(&said, Names::Missing(why) if why.contains("has no build-id")), "{said:?}");
    let Some(program) = Program::with(&["-Wl,--build-id=none"]) else { return };
    let waits = program.folder.path().join("waits.c");
    std::fs::write(&waits, "#include <unistd.h>\nint main(void) { return pause(); }\n")
        .expect("it can be written");
    if tool("cc", &["-g", "-Wl,--build-id=none", "waits.c", "-o", "waits"], program.folder.path()).is_none() {
        return;
    }
    let path = program.file("waits");
    let mut child = Command::new(&path).spawn().expect("it starts");
    let places = Places { process: Some(child.id()), ..Places::default() };
    // Between fork and exec the child is still this program.
    while !std::fs::read_link(format!("/proc/{}/exe", child.id())).is_ok_and(|exe| exe == Path::new(&path)) {
        std::thread::yield_now();
    }
    let module = Module { path: path.clone(), build_id: vec![] };
    let known = names(&places, &module, 0).1;
    let elsewhere = names(&Places { own_pid: Some(child.id()), ..Places::default() }, &module, 0).1;
    child.kill().expect("it is running");
    child.wait().expect("it ends");
    assert_eq!(known, Names::Lines);
    assert!(matches!(elsewhere, Names::Missing(_)), "{elsewhere:?}");
}

/// A service that was deployed anew while the old one still runs.
#[test]
fn a_program_that_was_replaced_is_read_through_its_process() {
    let Some(program) = Program::with(&["-Wl,--build-id"]) else { return };
    let waits = program.folder.path().join("waits.c");
    std::fs::write(&waits, "#include <unistd.h>\nint main(void) { return pause(); }\n")
        .expect("it can be written");
    if tool("cc", &["-g", "-Wl,--build-id", "waits.c", "-o", "waits"], program.folder.path()).is_none() {
        return;
    }
    let path = program.folder.path().join("waits");
    let mut child = Command::new(&path).spawn().expect("it starts");
    while !std::fs::read_link(format!("/proc/{}/exe", child.id())).is_ok_and(|exe| exe == path) {
        std::thread::yield_now();
    }
    let module = Module { path: format!("{} (deleted)", path.display()), build_id: build_id(&path) };
    std::fs::remove_file(&path).expect("it can be removed");
    std::fs::copy(&program.path, &path).expect("another one takes its place");
    let places = Places { process: Some(child.id()), ..Places::default() };
    let found = places.find(&module);
    let known = names(&places, &module, 0).1;
    child.kill().expect("it is running");
    child.wait().expect("it ends");
    assert_eq!(found.0.map(|found| found.path), Some(PathBuf::from(format!("/proc/{}/exe", child.id()))));
    assert_eq!((known, module.name()), (Names::Lines, "waits"));
}

#[test]
fn a_file_that_is_changed_while_it_is_open_is_not_read_any_further() {
    let Some(program) = Program::with(&["-Wl,--build-id"]) else { return };
    let mut reader = reader(&Places::default());
    let module = Arc::new(program.module());
    let named = |reader: &mut Reader| reader.frames(&module, program.outer)[0].function.is_some();
    assert!(named(&mut reader));
    // Cut off under the map: to read there would end this program.
    File::options()
        .write(true)
        .open(&program.path)
        .and_then(|file| file.set_len(100))
        .expect("it can be cut");
    assert!(!named(&mut reader));
    let names = reader.shared.known().names.get(&module).cloned();
    assert!(matches!(&names, Some(Names::Missing(why)) if why.contains("damaged")), "{names:?}");
}

/// Bytes of this process.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("it can be read");
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("it is a number") * 4096
}

/// What a file of many gigabytes costs is what is touched of it.
#[test]
fn a_huge_program_costs_what_is_looked_at() {
    let Some(program) = Program::with(&["-Wl,--build-id"]) else { return };
    let file = File::options().write(true).open(&program.path).expect("it can be opened");
    file.set_len(16 << 30).expect("a sparse file can be made");
    let before = resident();
    assert_eq!(program.deepest(&Places::default(), &program.module()).0, WHOLE);
    let grown = resident().saturating_sub(before);
    // Other tests of this process run meanwhile.
    assert!(grown < 1 << 30, "{grown} bytes");
}

/// Also under the name of another target, which has a copy of it.
#[test]
#[allow(clippy::disallowed_methods, reason = "it is about how long it takes")]
fn a_program_of_very_many_symbols_is_read_in_seconds_and_once_for_all_who_run_it() {
    const SYMBOLS: usize = 500_000;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = |name: &str| folder.path().join(name);
    let assembly = format!(
        ".text\n.macro one\n.globl one_of_very_many_functions_\\@\n.type one_of_very_many_functions_\\@, \
         @function\none_of_very_many_functions_\\@:\nnop\n.size one_of_very_many_functions_\\@, 1\n.endm\n\
         .rept {SYMBOLS}\none\n.endr\n.section .note.GNU-stack,\"\",@progbits\n"
    );
    std::fs::write(file("many.s"), assembly).expect("it can be written");
    std::fs::write(file("prog.c"), SOURCE).expect("it can be written");
    let flags = ["-g", "-O1", "-Wl,--build-id", "prog.c", "many.s", "-o", "prog"];
    if tool("cc", &flags, folder.path()).is_none() {
        return;
    }
    std::fs::copy(file("prog"), file("copy")).expect("it can be copied");
    let elf = std::fs::read(file("prog")).expect("it can be read");
    assert!(elf.len() > 60 * SYMBOLS, "{} bytes", elf.len());
    drop(elf);
    let module = |name: &str| {
        let path = file(name);
        Arc::new(Module { path: path.display().to_string(), build_id: build_id(&path) })
    };
    let symbols = String::from_utf8(tool("nm", &["prog"], folder.path()).expect("nm")).expect("text");
    let place = symbols.lines().find(|line| line.ends_with(" T one_of_very_many_functions_4711"));
    let address = place.and_then(|line| u64::from_str_radix(line.split(' ').next()?, 16).ok());
    let address = address.expect("nm tells where it is");
    let before = resident();
    let began = std::time::Instant::now();
    let mut readers = [reader(&Places::default()), reader(&Places::default())];
    let told = ["prog", "copy"].map(|name| {
        let frames = readers[usize::from(name == "copy")].frames(&module(name), address);
        frames[0].function.clone()
    });
    assert_eq!(told.map(Option::unwrap_or_default), ["one_of_very_many_functions_4711"; 2]);
    assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
    let grown = resident().saturating_sub(before);
    println!("{SYMBOLS} symbols: {:?}, {grown} bytes", began.elapsed());
    // The file as it is mapped, a table of it, and what other tests of this process do meanwhile.
    assert!(grown < 400 << 20, "{grown} bytes");
    let of_one_file = |reader: &Reader| reader.open[0].1.as_ref().map(CodeFile::users);
    assert_eq!(of_one_file(&readers[0]), Some(2), "it is open once");
    readers[1].open.clear();
    assert_eq!(of_one_file(&readers[0]), Some(1));
    // One that is changed is nobody's any more.
    std::fs::copy(file("copy"), file("prog")).expect("it can be copied");
    File::options()
        .append(true)
        .open(file("prog"))
        .and_then(|mut file| std::io::Write::write_all(&mut file, b"more"))
        .expect("it can be written to");
    assert!(readers[1].frames(&module("copy"), address)[0].function.is_some());
    assert_eq!(of_one_file(&readers[1]), Some(1), "opened anew");
}

#[test]
fn pipes_and_folders_are_not_waited_for() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    if tool("mkfifo", &["pipe"], folder.path()).is_none() {
        return;
    }
    let places = Places { debug_dirs: vec![folder.path().to_owned()], ..Places::default() };
    for path in ["pipe", ""] {
        let path = folder.path().join(path).display().to_string();
        let (frames, names) = names(&places, &Module { path, build_id: vec![7; 20] }, 1);
        assert!(frames[0].function.is_none() && matches!(names, Names::Missing(_)), "{names:?}");
    }
    let kernel = names(&places, &Module { path: "[vdso]".into(), build_id: vec![] }, 1).1;
    assert_eq!(kernel, Names::Missing("[vdso] is no file".into()));
}

#[test]
fn files_that_are_open_have_a_limit() {
    let mut reader = reader(&Places::default());
    for at in 0..FILES_OPEN + 9 {
        let path = format!("/nowhere/{at}");
        reader.frames(&Arc::new(Module { path, build_id: vec![1] }), 1);
    }
    assert_eq!(reader.open.len(), FILES_OPEN);
    assert_eq!(reader.open[0].0.path, "/nowhere/9", "the one that was not used for longest has gone");
}

/// Whoever asks never waits: what is not known yet is answered later, once for each address.
#[tokio::test]
async fn names_are_answered_when_they_are_there() {
    let Some(program) = Program::with(&["-Wl,--build-id"]) else { return };
    let symbols = Symbols::of(Places::default());
    let module = Arc::new(program.module());
    let mut answers = symbols.answers();
    let first = symbols.frames(&module, program.outer);
    let mut asked = symbols.frames(&module, program.outer).or(first);
    while asked.is_none() {
        answers.changed().await.expect("somebody answers");
        asked = symbols.frames(&module, program.outer);
    }
    let frames = asked.expect("it was answered");
    assert_eq!(frames.last().and_then(|frame| frame.function.as_deref()), Some("outer"));
    assert_eq!(symbols.names(&module), Some(Names::Lines));
    assert_eq!(symbols.shared.known().asked.len(), 0);
}

#[test]
fn random_damage_never_ends_more_than_the_names() {
    let Some(program) = Program::with(&["-Wl,--build-id"]) else { return };
    let whole = std::fs::read(&program.path).expect("it can be read");
    let (id, folder) = (build_id(&program.path), program.folder.path().join("damaged"));
    std::fs::create_dir(&folder).expect("it can be made");
    let count = std::cell::Cell::new(0);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(300));
    let damage = proptest::collection::vec((0..whole.len(), any::<u8>()), 1..60);
    let cut = proptest::option::of(64..whole.len());
    let outcome = runner.run(&(damage, cut), |(damage, cut)| {
        // A file of its own each time: what is mapped must not change.
        count.set(count.get() + 1);
        let path = folder.join(count.get().to_string());
        let mut bytes = whole.clone();
        damage.iter().for_each(|&(at, byte)| bytes[at] = byte);
        bytes.truncate(cut.unwrap_or(bytes.len()));
        File::create(&path).and_then(|file| file.write_all_at(&bytes, 0)).expect("it can be written");
        let module = Module { path: path.display().to_string(), build_id: id.clone() };
        for address in [program.outer, program.outer + 4, 0, u64::MAX] {
            let (frames, _) = names(&Places::default(), &module, address);
            prop_assert!(!frames.is_empty() && frames.len() <= 65);
        }
        std::fs::remove_file(&path).expect("it can be removed");
        Ok(())
    });
    assert!(outcome.is_ok(), "{outcome:?}");
}
