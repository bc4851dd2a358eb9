//! Names of Linux system calls, by the architecture of the target and not of this program.

/// The name of call `number`; `None` for an architecture or number that is not known.
pub(crate) fn name(arch: &str, number: u32) -> Option<&'static str> {
    let number = number as usize;
    match arch {
        "x86_64" => syscalls::x86_64::Sysno::new(number).map(|call| call.name()),
        "aarch64" => syscalls::aarch64::Sysno::new(number).map(|call| call.name()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_by_the_targets_architecture() {
        assert_eq!(name("x86_64", 230), Some("clock_nanosleep"));
        assert_eq!(name("aarch64", 115), Some("clock_nanosleep"));
        assert_eq!((name("x86_64", 99_999), name("riscv64", 1)), (None, None));
    }
}
