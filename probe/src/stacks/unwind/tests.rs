use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Code at 0x1000 to 0x2000, with or without rules.
struct Plain {
    rules: Option<Rules>,
}

impl Code for Plain {
    fn rules(&mut self, _: u64) -> Option<Rules> {
        self.rules.clone()
    }

    fn is_code(&mut self, address: u64) -> bool {
        (0x1000..0x2000).contains(&address)
    }

    fn is_signal_return(&mut self, address: u64) -> bool {
        address == SIGNAL_RETURN
    }
}

const SIGNAL_RETURN: u64 = 0x1f00;

const WITHOUT_RULES: Plain = Plain { rules: None };

fn registers(code: u64, stack: u64, frame: u64) -> Registers {
    let mut registers = [None; REGISTERS];
    registers[machine::CODE_POINTER] = Some(code);
    registers[STACK_POINTER] = Some(stack);
    registers[machine::FRAME_POINTER] = Some(frame);
    registers
}

fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A stack at 0x7000 of these words.
fn stack(bytes: &[u8], is_cut: bool) -> Stack<'_> {
    Stack { from: 0x7000, bytes, is_cut }
}

#[test]
fn without_rules_the_chain_of_frame_pointers_is_followed_to_its_end() {
    let words = bytes(&[7, 7, 0x7020, 0x1100, 0x7030, 0x1200, 0, 0]);
    let unwound = unwind(&registers(0x1050, 0x7000, 0x7010), stack(&words, false), &mut { WITHOUT_RULES });
    assert_eq!(unwound, Unwound { addresses: vec![0x1050, 0x10ff, 0x11ff], end: End::Whole });
}

#[test]
fn a_chain_that_goes_back_or_leads_nowhere_is_lost() {
    let lost = |words: &[u64], frame: u64| {
        let words = bytes(words);
        let unwound = unwind(&registers(0x1050, 0x7000, frame), stack(&words, false), &mut { WITHOUT_RULES });
        assert_eq!(unwound.addresses[0], 0x1050);
        (unwound.addresses.len(), unwound.end)
    };
    assert_eq!(lost(&[0x7000, 0x1100], 0x7000), (1, End::Lost), "it points to itself");
    assert_eq!(lost(&[0x7010, 0x9999_9999, 0, 0], 0x7000), (1, End::Lost), "no code is there");
    assert_eq!(lost(&[0x7010, 0x1100], 0x7001), (1, End::Lost), "it is no address of a word");
    assert_eq!(lost(&[0x7100, 0x1100], 0x7000), (2, End::Lost), "it leaves the stack");
}

#[test]
fn a_chain_that_leaves_the_part_that_was_copied_is_too_deep() {
    let words = bytes(&[0x7100, 0x1100]);
    let unwound = unwind(&registers(0x1050, 0x7000, 0x7000), stack(&words, true), &mut { WITHOUT_RULES });
    assert_eq!(unwound, Unwound { addresses: vec![0x1050, 0x10ff], end: End::TooDeep });
}

#[test]
fn what_a_handler_interrupted_is_in_the_frame_of_its_signal() {
    const OFFSET: u64 = 312;
    // Of a handler at 0x7000, and the frame of the signal at 0x7010, whose stack goes on at `pointer`.
    let interrupted = |pointer: u64, size: usize| {
        let mut words = vec![0; 80];
        let first = (0x10 + OFFSET as usize) / 8;
        words[first + machine::FRAME_POINTER] = 0x7240;
        words[first + STACK_POINTER] = pointer;
        words[first + machine::CODE_POINTER] = 0x1234;
        let registers = registers(SIGNAL_RETURN, 0x7010, 0);
        super::interrupted(&registers, OFFSET, stack(&bytes(&words)[..size], false))
    };
    let outer = interrupted(0x7220, 640).expect("all of it is there");
    assert!(outer.is_exact, "it has not called");
    let pointers = [machine::CODE_POINTER, STACK_POINTER, machine::FRAME_POINTER];
    assert_eq!(pointers.map(|it| outer.registers[it]), [Some(0x1234), Some(0x7220), Some(0x7240)]);
    // On a stack of its own; and where the copy ends before the registers do.
    assert_eq!(interrupted(0x6000, 640).err(), Some(End::Lost));
    assert_eq!(interrupted(0x7220, 400).err(), Some(End::Lost));
}

#[test]
fn more_frames_than_there_may_be_are_too_deep() {
    let words: Vec<u64> = (1..=400).flat_map(|frame| [0x7000 + frame * 16, 0x1500]).collect();
    let words = bytes(&words);
    let unwound = unwind(&registers(0x1050, 0x7000, 0x7000), stack(&words, false), &mut { WITHOUT_RULES });
    assert_eq!((unwound.addresses.len(), unwound.end), (DEEPEST, End::TooDeep));
}

/// A common description for this machine (the caller's stack pointer is eight bytes up, and the return address below it), and
/// one for the code from 0x1000 on, with these instructions.
fn rules(instructions: &[u8]) -> Rules {
    let entry = |mut content: Vec<u8>| {
        content.resize(content.len().next_multiple_of(4), 0);
        let mut entry = (content.len() as u32).to_le_bytes().to_vec();
        entry.append(&mut content);
        entry
    };
    let (pointer, returns) = (STACK_POINTER as u8, machine::RETURN as u8);
    // Version 1, "zR", factors 1 and -8, the return column, one byte of augmentation: addresses are absolute.
    let mut cie = vec![0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, returns, 1, 0];
    // def_cfa, offset of the return address.
    cie.extend([0x0c, pointer, 8, 0x80 | returns, 1]);
    let mut fde = vec![0; 4];
    fde.extend(0x1000u64.to_le_bytes());
    fde.extend(0x1000u64.to_le_bytes());
    fde.push(0);
    fde.extend(instructions);
    Rules { cie: entry(cie), fde: entry(fde), fde_at: 0x4000 }
}

#[test]
fn rules_say_where_the_caller_is_and_which_function_is_the_first() {
    let words = bytes(&[0x1101, 0x1201, 0]);
    let mut code = Plain { rules: Some(rules(&[])) };
    let unwound = unwind(&registers(0x1050, 0x7000, 1), stack(&words, false), &mut code);
    assert_eq!(unwound, Unwound { addresses: vec![0x1050, 0x1100, 0x1200], end: End::Whole });
    // The return address is undefined: nobody called.
    let mut code = Plain { rules: Some(rules(&[0x07, machine::RETURN as u8])) };
    let unwound = unwind(&registers(0x1050, 0x7000, 1), stack(&words, false), &mut code);
    assert_eq!(unwound, Unwound { addresses: vec![0x1050], end: End::Whole });
}

#[cfg(target_arch = "aarch64")]
#[test]
fn return_addresses_that_the_processor_has_signed_are_read_without_the_signature() {
    let signed = |address: u64| 0x00a5_0000_0000_0000 | address;
    let words = bytes(&[signed(0x1101), signed(0x1201), 0]);
    // negate_ra_state, as compilers write it where they sign.
    let mut code = Plain { rules: Some(rules(&[0x2d])) };
    let unwound = unwind(&registers(0x1050, 0x7000, 1), stack(&words, false), &mut code);
    assert_eq!(unwound, Unwound { addresses: vec![0x1050, 0x1100, 0x1200], end: End::Whole });
    // By frame pointers.
    let words = bytes(&[0x7010, signed(0x1100), 0, 0]);
    let unwound = unwind(&registers(0x1050, 0x7000, 0x7000), stack(&words, false), &mut { WITHOUT_RULES });
    assert_eq!(unwound, Unwound { addresses: vec![0x1050, 0x10ff], end: End::Whole });
}

#[test]
fn an_expression_is_evaluated_and_one_that_never_ends_ends() {
    let words = bytes(&[9, 9, 0x1101, 0]);
    // def_cfa_expression: the stack pointer plus 24.
    let pointer = 0x70 + STACK_POINTER as u8;
    let code = |instructions: &[u8]| Plain { rules: Some(rules(instructions)) };
    let mut plus = code(&[0x0f, 2, pointer, 24]);
    let unwound = unwind(&registers(0x1050, 0x7000, 1), stack(&words, false), &mut plus);
    assert_eq!(unwound.addresses, [0x1050, 0x1100]);
    // skip back to itself.
    let mut endless = code(&[0x0f, 3, 0x2f, 0xfd, 0xff]);
    let unwound = unwind(&registers(0x1050, 0x7000, 1), stack(&words, false), &mut endless);
    assert_eq!(unwound, Unwound { addresses: vec![0x1050], end: End::Lost });
}

#[test]
fn a_stack_that_does_not_grow_is_lost() {
    let words = bytes(&[0x1101, 0x1201, 0]);
    // def_cfa_offset 0: the caller's stack begins where the callee's does.
    let mut code = Plain { rules: Some(rules(&[0x0e, 0])) };
    let unwound = unwind(&registers(0x1050, 0x7008, 1), stack(&words, false), &mut code);
    assert_eq!(unwound.end, End::Lost);
    assert!(unwound.addresses.len() <= 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn whatever_the_stack_holds_it_ends(
        content in vec(any::<u8>(), 0..600),
        addresses in vec(0x6ff0u64..0x7300, 40),
        code in any::<u64>(),
        at in 0x6f00u64..0x7300,
        frame in 0x6f00u64..0x7300,
        is_cut in any::<bool>(),
    ) {
        // Half of the words point into the stack.
        let mut content = content;
        for (place, address) in addresses.iter().enumerate() {
            if let Some(word) = content.get_mut(place * 16..place * 16 + 8) {
                word.copy_from_slice(&address.to_le_bytes());
            }
        }
        for rules in [None, Some(rules(&[]))] {
            let unwound = unwind(&registers(code, at, frame), stack(&content, is_cut), &mut Plain { rules });
            prop_assert!(unwound.addresses.len() <= DEEPEST);
            prop_assert!(unwound.end != End::TooDeep || is_cut || unwound.addresses.len() == DEEPEST);
        }
    }

    #[test]
    fn whatever_the_rules_say_it_ends(
        instructions in vec(any::<u8>(), 0..60),
        cie in vec(any::<u8>(), 0..60),
        fde in vec(any::<u8>(), 0..60),
        content in vec(any::<u8>(), 0..400),
        is_random in any::<bool>(),
    ) {
        let rules = if is_random { Rules { cie, fde, fde_at: u64::MAX - 3 } } else { rules(&instructions) };
        let mut code = Plain { rules: Some(rules) };
        let unwound = unwind(&registers(0x1050, 0x7000, 0x7010), stack(&content, false), &mut code);
        prop_assert!(unwound.addresses.len() <= DEEPEST);
    }
}
