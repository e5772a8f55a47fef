//! The system calls that a worker may make; any other one kills it.

use std::collections::BTreeMap;
use std::io;
use std::sync::OnceLock;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

/// Allowed with whatever arguments, each for its reason.
const ALLOWED: &[i64] = &[
    // The client, and the channel to the monitor.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    // The mailbox: what it holds, and whether it changed.
    libc::SYS_pread64,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_close,
    // Memory (what may be mapped is looked at below).
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // Time, where the vdso has none.
    libc::SYS_clock_gettime,
    libc::SYS_restart_syscall,
    // Random numbers for TLS.
    libc::SYS_getrandom,
    // Locks of the C library's allocator.
    libc::SYS_futex,
    // The end.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigreturn,
];

static PROGRAM: OnceLock<BpfProgram> = OnceLock::new();

/// Makes the filter, for this process and those that are forked from it.
pub(super) fn prepare() {
    if PROGRAM.get().is_some() {
        return;
    }
    if let Ok(program) = program() {
        PROGRAM.get_or_init(|| program);
    }
}

/// Installs the filter for good.
///
/// # Errors
///
/// The kernel has no seccomp filters, or this machine is of a kind that nobody made one for.
pub(super) fn filter() -> io::Result<()> {
    prepare();
    let program = PROGRAM.get().ok_or_else(|| io::Error::other("no filter for this machine"))?;
    apply_filter(program).map_err(io::Error::other)
}

fn program() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|number| (*number, Vec::new())).collect();
    let anonymous = libc::MAP_ANONYMOUS.unsigned_abs().into();
    let executable = libc::PROT_EXEC.unsigned_abs().into();
    // Memory without a file behind it, and never executable.
    rules.insert(
        libc::SYS_mmap,
        vec![SeccompRule::new(vec![masked(2, executable, 0)?, masked(3, anonymous, anonymous)?])?],
    );
    rules.insert(libc::SYS_mprotect, vec![SeccompRule::new(vec![masked(2, executable, 0)?])?]);
    SeccompFilter::new(
        rules,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        TargetArch::try_from(std::env::consts::ARCH)?,
    )?
    .try_into()
}

/// The bits of `mask` in an argument are `value`.
fn masked(
    argument: u8,
    mask: u64,
    value: u64,
) -> Result<SeccompCondition, seccompiler::BackendError> {
    let operator = SeccompCmpOp::MaskedEq(mask);
    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, operator, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi::process::fork;
    use nix::sys::signal::Signal;
    use nix::sys::wait::{WaitStatus, waitpid};

    fn end_of(act: impl FnOnce() -> i32) -> WaitStatus {
        let child = fork(|| {
            let prepared = nix::sys::prctl::set_no_new_privs().is_ok() && filter().is_ok();
            if prepared { act() } else { 99 }
        });
        waitpid(child.unwrap(), None).unwrap()
    }

    #[test]
    fn opening_a_file_kills() {
        let end = end_of(|| i32::from(std::fs::File::open("/etc/passwd").is_ok()));
        assert!(matches!(end, WaitStatus::Signaled(_, Signal::SIGSYS, _)), "{end:?}");
    }

    #[test]
    fn new_sockets_and_processes_kill() {
        let end = end_of(|| i32::from(std::net::UdpSocket::bind("127.0.0.1:0").is_ok()));
        assert!(matches!(end, WaitStatus::Signaled(_, Signal::SIGSYS, _)), "{end:?}");
        let end = end_of(|| i32::from(fork(|| 0).is_ok()));
        assert!(matches!(end, WaitStatus::Signaled(_, Signal::SIGSYS, _)), "{end:?}");
    }

    #[test]
    fn memory_can_be_had() {
        let end = end_of(|| i32::from(vec![1_u8; 64 << 20].len() != 64 << 20));
        assert!(matches!(end, WaitStatus::Exited(_, 0)), "{end:?}");
    }
}
