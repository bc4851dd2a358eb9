//! From registers and a copy of a stack to the addresses of its frames. Pure code: whatever the bytes are, it ends, and never
//! reads outside of them.
//!
//! What a function has done with the stack is in its module's `.eh_frame`; where there is nothing about it, the chain of frame
//! pointers is followed.

use gimli::{
    CfaRule, CieOrFde, EhFrame, Encoding, EndianSlice, EvaluationResult, Expression, Format, LittleEndian,
    Location, Register, RegisterRule, UnwindContext, UnwindSection, Value,
};
use taskscope_proto::v1::interned_stack::End;

/// Frames at most.
pub(crate) const DEEPEST: usize = 256;
/// Steps of one expression.
const LONGEST_EXPRESSION: u32 = 1_000;

#[cfg(target_arch = "x86_64")]
mod machine {
    /// rax, rdx, rcx, rbx, rsi, rdi, rbp, rsp, r8 to r15, and the return address.
    pub(super) const COUNT: usize = 17;
    pub(super) const FRAME_POINTER: usize = 6;
    pub(super) const STACK_POINTER: usize = 7;
    pub(super) const CODE_POINTER: usize = 16;
    /// Where a return address is kept: a call leaves it on the stack.
    pub(super) const RETURN: usize = CODE_POINTER;
    /// Handlers return to code of the C library, which has rules.
    pub(super) const INTERRUPTED: Option<u64> = None;
}
#[cfg(target_arch = "aarch64")]
mod machine {
    /// x0 to x30, sp, pc.
    pub(super) const COUNT: usize = 33;
    pub(super) const FRAME_POINTER: usize = 29;
    pub(super) const STACK_POINTER: usize = 31;
    pub(super) const CODE_POINTER: usize = 32;
    pub(super) const RETURN: usize = 30;
    /// Where a handler returns to has no rules: the kernel's page had them until Linux 5.8, and they told the link register in
    /// place of the program counter. What was interrupted is in the signal's frame, at the stack pointer: a `siginfo` of 128
    /// bytes, and 184 bytes into the `ucontext` x0 to x30, sp and pc.
    pub(super) const INTERRUPTED: Option<u64> = Some(128 + 184);
}

/// By their numbers in DWARF; on x86-64 the instruction pointer has that of the return address.
pub(crate) const REGISTERS: usize = machine::COUNT;
pub(crate) const STACK_POINTER: usize = machine::STACK_POINTER;
/// `None`: what it holds is not known.
pub(crate) type Registers = [Option<u64>; REGISTERS];

/// A part of a stack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stack<'a> {
    /// Address of the first byte.
    pub(crate) from: u64,
    pub(crate) bytes: &'a [u8],
    /// It goes on after them.
    pub(crate) is_cut: bool,
}

impl Stack<'_> {
    fn word(&self, address: u64) -> Result<u64, End> {
        let at = address.checked_sub(self.from).and_then(|at| usize::try_from(at).ok()).ok_or(End::Lost)?;
        let word = at.checked_add(8).and_then(|end| self.bytes.get(at..end));
        match word {
            Some(word) => Ok(u64::from_le_bytes(word.try_into().map_err(|_| End::Lost)?)),
            None if self.is_cut => Err(End::TooDeep),
            None => Err(End::Lost),
        }
    }
}

/// The rules of one function, as they lie in memory: its description, and the one that it shares with others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    pub(crate) cie: Vec<u8>,
    pub(crate) fde: Vec<u8>,
    /// Where the latter lies.
    pub(crate) fde_at: u64,
}

/// What is known about code.
pub(crate) trait Code {
    /// The rules of the function that holds an address; `None` where there are none.
    fn rules(&mut self, address: u64) -> Option<Rules>;
    /// Whether code can be there.
    fn is_code(&mut self, address: u64) -> bool;
    /// Whether the code there is what handlers of signals return to. Asked only where that has no rules to go by.
    fn is_signal_return(&mut self, address: u64) -> bool;
}

/// A stack, the innermost frame first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unwound {
    /// The first is the instruction that runs next; the others lie inside the instruction that called.
    pub(crate) addresses: Vec<u64>,
    pub(crate) end: End,
}

pub(crate) fn unwind(registers: &Registers, stack: Stack<'_>, code: &mut impl Code) -> Unwound {
    let mut addresses = Vec::with_capacity(64);
    let mut registers = *registers;
    // Whether the instruction itself is meant: it was interrupted and has not called.
    let mut is_exact = true;
    let mut context = UnwindContext::new();
    let end = loop {
        let Some(at) = registers[machine::CODE_POINTER].map(plain) else { break End::Lost };
        if at == 0 {
            break if addresses.is_empty() { End::Lost } else { End::Whole };
        }
        let inside = if is_exact { at } else { at - 1 };
        if !is_exact && !code.is_code(inside) {
            break End::Lost;
        }
        if addresses.len() == DEEPEST {
            break End::TooDeep;
        }
        addresses.push(inside);
        let stepped = match machine::INTERRUPTED {
            Some(offset) if !is_exact && code.is_signal_return(at) => interrupted(&registers, offset, stack),
            _ => step(&registers, inside, is_exact, stack, code, &mut context),
        };
        match stepped {
            Ok(outer) => {
                is_exact = outer.is_exact;
                registers = outer.registers;
            }
            Err(end) => break end,
        }
    };
    Unwound { addresses, end }
}

/// Without the bits in which the processor signs a return address.
fn plain(address: u64) -> u64 {
    if cfg!(target_arch = "aarch64") { address & ((1 << 48) - 1) } else { address }
}

struct Outer {
    registers: Registers,
    is_exact: bool,
}

/// What a handler interrupted: all registers, `offset` bytes above its stack pointer.
fn interrupted(registers: &Registers, offset: u64, stack: Stack<'_>) -> Result<Outer, End> {
    let pointer = registers[STACK_POINTER].ok_or(End::Lost)?;
    let first = pointer.checked_add(offset).ok_or(End::Lost)?;
    let mut outer = [None; REGISTERS];
    for (register, at) in outer.iter_mut().zip((0u64..).step_by(8)) {
        *register = Some(stack.word(first.saturating_add(at))?);
    }
    // A handler on a stack of its own: that of what it interrupted was not copied.
    if outer[STACK_POINTER].is_none_or(|after| after <= pointer) {
        return Err(End::Lost);
    }
    Ok(Outer { registers: outer, is_exact: true })
}

type Slice<'a> = EndianSlice<'a, LittleEndian>;

fn step(
    registers: &Registers,
    inside: u64,
    is_exact: bool,
    stack: Stack<'_>,
    code: &mut impl Code,
    context: &mut UnwindContext<usize>,
) -> Result<Outer, End> {
    let by_rules = code.rules(inside).map(|rules| by_rules(registers, inside, stack, &rules, context));
    let outer = match by_rules {
        Some(Ok(outer)) => outer,
        Some(Err(end @ (End::Whole | End::TooDeep))) => return Err(end),
        Some(Err(_)) | None => by_frame_pointer(registers, stack, code)?,
    };
    let (before, after) = (registers[STACK_POINTER], outer.registers[STACK_POINTER]);
    let may_stay = is_exact && machine::RETURN != machine::CODE_POINTER;
    match (before, after) {
        (Some(before), Some(after)) if after > before || may_stay && after == before => Ok(outer),
        _ => Err(End::Lost),
    }
}

/// As code does that was built with frame pointers: each points to the one before it, and the return address lies above.
fn by_frame_pointer(registers: &Registers, stack: Stack<'_>, code: &mut impl Code) -> Result<Outer, End> {
    let frame = registers[machine::FRAME_POINTER].ok_or(End::Lost)?;
    if frame == 0 {
        return Err(End::Whole);
    }
    let pointer = registers[STACK_POINTER].ok_or(End::Lost)?;
    if frame < pointer || frame % 8 != 0 {
        return Err(End::Lost);
    }
    let (before, returns) = (stack.word(frame)?, stack.word(frame.saturating_add(8))?);
    let returns = plain(returns);
    if returns == 0 {
        return Err(End::Whole);
    }
    if before != 0 && before <= frame || !code.is_code(returns.saturating_sub(1)) {
        return Err(End::Lost);
    }
    let mut outer = [None; REGISTERS];
    outer[machine::FRAME_POINTER] = Some(before);
    outer[STACK_POINTER] = Some(frame.saturating_add(16));
    outer[machine::CODE_POINTER] = Some(returns);
    Ok(Outer { registers: outer, is_exact: false })
}

fn by_rules(
    registers: &Registers,
    inside: u64,
    stack: Stack<'_>,
    rules: &Rules,
    context: &mut UnwindContext<usize>,
) -> Result<Outer, End> {
    // A section of their own, whose second entry lies where it does in memory: so relative addresses in it stay right.
    let mut bytes = rules.cie.clone();
    let fde_at = bytes.len();
    bytes.extend_from_slice(&rules.fde);
    let pointer = fde_at + 4;
    let distance = u32::try_from(pointer).map_err(|_| End::Lost)?;
    bytes.get_mut(pointer..pointer + 4).ok_or(End::Lost)?.copy_from_slice(&distance.to_le_bytes());
    let mut section = EhFrame::new(&bytes, LittleEndian);
    section.set_address_size(8);
    if cfg!(target_arch = "aarch64") {
        section.set_vendor(gimli::Vendor::AArch64);
    }
    let base = rules.fde_at.wrapping_sub(fde_at as u64);
    let bases = gimli::BaseAddresses::default().set_eh_frame(base);
    let mut entries = section.entries(&bases);
    let fde = loop {
        match entries.next().map_err(|_| End::Lost)? {
            Some(CieOrFde::Fde(partial)) => break partial.parse(EhFrame::cie_from_offset),
            Some(CieOrFde::Cie(_)) => {}
            None => return Err(End::Lost),
        }
    };
    let fde = fde.map_err(|_| End::Lost)?;
    let row = fde.unwind_info_for_address(&section, &bases, context, inside).map_err(|_| End::Lost)?;
    let encoding = fde.cie().encoding();
    let evaluation = Evaluation { registers, stack, encoding };

    let cfa = match row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } => {
            value_of(registers, *register)?.wrapping_add_signed(*offset)
        }
        CfaRule::Expression(expression) => {
            evaluation.run(expression.get(&section).map_err(|_| End::Lost)?, None)?
        }
    };
    let returns_by = fde.cie().return_address_register();
    match row.register(returns_by) {
        // So functions say that nobody called them.
        Some(RegisterRule::Undefined) => return Err(End::Whole),
        // It would be where we are already.
        None if machine::RETURN == machine::CODE_POINTER => return Err(End::Lost),
        _ => {}
    }
    let mut outer = *registers;
    outer[STACK_POINTER] = Some(cfa);
    for (number, value) in outer.iter_mut().enumerate() {
        let Some(rule) = row.register(Register(number as u16)) else {
            // Nothing is said: the function leaves it as it was, or its caller does not care.
            continue;
        };
        let restored = evaluation.restore(rule, *value, cfa, &section);
        // What else cannot be found is missed only by whom it is needed.
        *value = if number == usize::from(returns_by.0) { Some(restored?) } else { restored.ok() };
    }
    outer[machine::CODE_POINTER] = Some(value_of(&outer, returns_by)?);
    Ok(Outer { registers: outer, is_exact: fde.is_signal_trampoline() })
}

fn value_of(registers: &Registers, register: Register) -> Result<u64, End> {
    registers.get(usize::from(register.0)).copied().flatten().ok_or(End::Lost)
}

/// What an expression can look at.
struct Evaluation<'a> {
    registers: &'a Registers,
    stack: Stack<'a>,
    encoding: Encoding,
}

impl Evaluation<'_> {
    /// What a register held in the calling function; `now` is what it holds.
    fn restore(
        &self,
        rule: RegisterRule<usize>,
        now: Option<u64>,
        cfa: u64,
        section: &EhFrame<Slice<'_>>,
    ) -> Result<u64, End> {
        match rule {
            RegisterRule::SameValue => now.ok_or(End::Lost),
            RegisterRule::Offset(offset) => self.stack.word(cfa.wrapping_add_signed(offset)),
            RegisterRule::ValOffset(offset) => Ok(cfa.wrapping_add_signed(offset)),
            RegisterRule::Register(other) => value_of(self.registers, other),
            RegisterRule::Expression(expression) => {
                let expression = expression.get(section).map_err(|_| End::Lost)?;
                self.stack.word(self.run(expression, Some(cfa))?)
            }
            RegisterRule::ValExpression(expression) => {
                let expression = expression.get(section).map_err(|_| End::Lost)?;
                self.run(expression, Some(cfa))
            }
            RegisterRule::Constant(constant) => Ok(constant),
            _ => Err(End::Lost),
        }
    }

    fn run(&self, expression: Expression<Slice<'_>>, first: Option<u64>) -> Result<u64, End> {
        let encoding = Encoding { address_size: 8, format: Format::Dwarf32, ..self.encoding };
        let mut evaluation = expression.evaluation(encoding);
        evaluation.set_max_iterations(LONGEST_EXPRESSION);
        if let Some(first) = first {
            evaluation.set_initial_value(first);
        }
        let mut state = evaluation.evaluate().map_err(|_| End::Lost)?;
        loop {
            state = match state {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresMemory { address, size, .. } => {
                    let word = self.stack.word(address)?;
                    let bits = u32::from(size.min(8)) * 8;
                    let part = if bits == 64 { word } else { word & ((1 << bits) - 1) };
                    evaluation.resume_with_memory(Value::Generic(part))
                }
                EvaluationResult::RequiresRegister { register, .. } => {
                    evaluation.resume_with_register(Value::Generic(value_of(self.registers, register)?))
                }
                _ => return Err(End::Lost),
            }
            .map_err(|_| End::Lost)?;
        }
        match evaluation.as_result() {
            [piece] => match piece.location {
                Location::Address { address } => Ok(address),
                Location::Value { value: Value::Generic(value) } => Ok(value),
                _ => Err(End::Lost),
            },
            _ => Err(End::Lost),
        }
    }
}

#[cfg(test)]
mod tests;
