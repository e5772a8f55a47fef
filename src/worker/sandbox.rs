//! Locking this process in, before the first octet of the client is read.

use std::io;

use capctl::{CapState, ambient, bounding};
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, LandlockStatus, Ruleset,
    RulesetAttr, Scope,
};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{chdir, chroot, geteuid, getppid, setgroups, setresgid, setresuid};

use super::{Confinement, Jail, syscalls};

/// Descriptors below this number may still be opened: the mailbox, while the one before it is
/// still there, and a file of unique-ids.
const DESCRIPTORS: u64 = 3;

/// Memory for each message of a mailbox (100 octets in the index, as much again while a list grows,
/// and 120 to find them again in a mailbox that changed), and what a process has besides.
const MEMORY_PER_MESSAGE: u64 = 320;
const MEMORY_BASE: u64 = 256 * 1024 * 1024;

/// What the kernel could do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strength {
    /// All, with this version of Landlock's interface; each adds something to it.
    Landlock(u8),
    /// An old kernel; the empty root and the filter keep files away all the same.
    WithoutLandlock,
}

/// Gives up everything but the descriptors that are open.
///
/// # Errors
///
/// The process must end: it is not locked in.
pub(super) fn enter(confinement: &Confinement) -> io::Result<Strength> {
    match &confinement.jail {
        Some(jail) => go_to_jail(jail)?,
        // What is left out is for users, who never had it.
        None if geteuid().is_root() => return Err(io::ErrorKind::PermissionDenied.into()),
        None => {}
    }
    prctl::set_no_new_privs()?;
    prctl::set_dumpable(false)?;
    // Behind the change of ids, which forgets it.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if getppid() != confinement.parent {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    let strength = forbid_files()?;
    limit_resources(confinement)?;
    syscalls::filter()?;
    Ok(strength)
}

/// Gives up what root is.
fn go_to_jail(jail: &Jail) -> io::Result<()> {
    let no_cap = |error: capctl::Error| io::Error::from_raw_os_error(error.code());
    // Each drop costs the kernel a set of credentials, so only what is there.
    for cap in bounding::probe().iter() {
        bounding::drop(cap).map_err(no_cap)?;
    }
    bounding::clear_unknown().map_err(no_cap)?;
    ambient::clear().map_err(no_cap)?;
    chdir(jail.root.as_c_str())?;
    chroot(c".")?;
    chdir(c"/")?;
    setgroups(&[])?;
    setresgid(jail.gid, jail.gid, jail.gid)?;
    setresuid(jail.uid, jail.uid, jail.uid)?;
    CapState::empty().set_current().map_err(no_cap)
}

/// Landlock: no file, no port, no signal and no abstract socket outside, where the kernel can.
fn forbid_files() -> io::Result<Strength> {
    let restrict = || {
        Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(ABI::V5))?
            .handle_access(AccessNet::from_all(ABI::V5))?
            .scope(Scope::from_all(ABI::V6))?
            .create()?
            .restrict_self()
    };
    let status = restrict().map_err(io::Error::other)?;
    Ok(match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => {
            Strength::Landlock(u8::try_from(effective_abi as i32).unwrap_or(u8::MAX))
        }
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => Strength::WithoutLandlock,
    })
}

fn limit_resources(confinement: &Confinement) -> io::Result<()> {
    let memory = MEMORY_BASE + u64::from(confinement.limits.messages) * MEMORY_PER_MESSAGE;
    for (resource, most) in [
        (Resource::RLIMIT_NPROC, 0),
        (Resource::RLIMIT_FSIZE, 0),
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_MEMLOCK, 0),
        (Resource::RLIMIT_AS, memory),
        (Resource::RLIMIT_NOFILE, DESCRIPTORS),
    ] {
        setrlimit(resource, most, most)?;
    }
    Ok(())
}
