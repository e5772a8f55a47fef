//! A transaction with libpam (pam(3)). Runs in the monitor only.
//!
//! The `pam` crate lends its declarations; its own client passes dangling names and keeps
//! passwords, so the handle is ours.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::fmt;
use std::ptr;
use std::time::Duration;

use nix::libc;
use pam::ffi;
use zeroize::Zeroizing;

/// Longest password that PAM takes, in octets, without the final NUL (PAM_MAX_RESP_SIZE).
pub const MAX_PASSWORD: usize = ffi::PAM_MAX_RESP_SIZE as usize - 1;

/// How many of the modules' messages are kept, and how many octets of each.
const MAX_MESSAGES: usize = 8;
const MAX_MESSAGE_OCTETS: usize = 200;

/// A password as PAM wants it: ended by NUL, and wiped when dropped.
pub struct Password(Zeroizing<Vec<u8>>);

impl Password {
    /// Takes a password without NUL of at most [`MAX_PASSWORD`] octets.
    #[must_use]
    pub fn new(octets: &[u8]) -> Option<Self> {
        if octets.len() > MAX_PASSWORD || octets.contains(&0) {
            return None;
        }
        // One allocation of the final size: growing would leave an unwiped copy behind.
        let mut copy = Zeroizing::new(Vec::with_capacity(octets.len() + 1));
        copy.extend_from_slice(octets);
        copy.push(0);
        Some(Self(copy))
    }
}

/// What a libpam call refused, in libpam's own words.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Which call, such as `authenticate`.
    pub step: &'static str,
    /// The return value, a `PAM_…` constant.
    pub code: i32,
    /// pam_strerror(3) of it.
    pub text: String,
}

impl Failure {
    /// Whether the stack judged the user or the password (as opposed to being out of order itself).
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(
            self.code,
            ffi::PAM_AUTH_ERR
                | ffi::PAM_USER_UNKNOWN
                | ffi::PAM_MAXTRIES
                | ffi::PAM_PERM_DENIED
                | ffi::PAM_ACCT_EXPIRED
                | ffi::PAM_NEW_AUTHTOK_REQD
                | ffi::PAM_AUTHTOK_EXPIRED
                | ffi::PAM_CRED_EXPIRED
                | ffi::PAM_CRED_INSUFFICIENT
        )
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PAM {}: {} ({})", self.step, self.text, self.code)
    }
}

impl std::error::Error for Failure {}

/// What the callbacks of libpam read and write.
struct Conversation {
    password: Option<Password>,
    messages: Vec<String>,
    delay: Duration,
}

/// One login as libpam sees it, from pam_start(3) to pam_end(3).
#[derive(Debug)]
pub struct Transaction {
    handle: *mut ffi::pam_handle_t,
    /// Owned; libpam's callbacks reach it by this pointer while a call is under way.
    conversation: *mut Conversation,
    status: c_int,
}

impl Transaction {
    /// Begins a transaction of `service` (pam_start(3)), whose user is to be set before anything else.
    ///
    /// # Errors
    ///
    /// libpam's: the service's file cannot be parsed, no memory.
    pub fn start(service: &CStr) -> Result<Self, Failure> {
        let conversation = Box::into_raw(Box::new(Conversation {
            password: None,
            messages: Vec::new(),
            delay: Duration::ZERO,
        }));
        let callbacks = ffi::pam_conv { conv: Some(converse), appdata_ptr: conversation.cast() };
        let mut handle = ptr::null_mut();
        // SAFETY: the service ends with NUL and is copied by libpam, as is `callbacks`; there may be no
        // user yet; the conversation lives until after pam_end in `drop`.
        let status = unsafe {
            ffi::pam_start(service.as_ptr(), ptr::null(), &raw const callbacks, &raw mut handle)
        };
        let mut transaction = Self { handle, conversation, status };
        transaction.check("start", status)?;
        type Delay = unsafe extern "C" fn(c_int, c_uint, *mut c_void);
        let delay: Delay = note_delay;
        transaction.set_item(ffi::PAM_FAIL_DELAY, delay as *const c_void)?;
        Ok(transaction)
    }

    /// Sets PAM_USER.
    ///
    /// # Errors
    ///
    /// libpam's.
    pub fn set_user(&mut self, user: &CStr) -> Result<(), Failure> {
        self.set_item(ffi::PAM_USER, user.as_ptr().cast())
    }

    /// Sets PAM_RHOST, the client's address.
    ///
    /// # Errors
    ///
    /// libpam's.
    pub fn set_remote_host(&mut self, host: &CStr) -> Result<(), Failure> {
        self.set_item(ffi::PAM_RHOST, host.as_ptr().cast())
    }

    /// Sets PAM_TTY.
    ///
    /// # Errors
    ///
    /// libpam's.
    pub fn set_terminal(&mut self, terminal: &CStr) -> Result<(), Failure> {
        self.set_item(ffi::PAM_TTY, terminal.as_ptr().cast())
    }

    /// Asks the stack whether `password` is the user's (pam_authenticate(3)); empty ones never are.
    ///
    /// The delay that the stack wants after a failure is not slept here: see
    /// [`Self::wanted_delay`].
    ///
    /// # Errors
    ///
    /// libpam's.
    pub fn authenticate(&mut self, password: Password) -> Result<(), Failure> {
        self.with_conversation(|conversation| conversation.password = Some(password));
        // SAFETY: the handle is open.
        let status = unsafe { ffi::pam_authenticate(self.handle, ffi::PAM_DISALLOW_NULL_AUTHTOK) };
        self.with_conversation(|conversation| conversation.password = None);
        self.check("authenticate", status)
    }

    /// Asks whether the account may be used now (pam_acct_mgmt(3)).
    ///
    /// # Errors
    ///
    /// libpam's.
    pub fn check_account(&mut self) -> Result<(), Failure> {
        // SAFETY: the handle is open.
        let status = unsafe { ffi::pam_acct_mgmt(self.handle, ffi::PAM_DISALLOW_NULL_AUTHTOK) };
        self.check("acct_mgmt", status)
    }

    /// Establishes credentials (pam_setcred(3)).
    ///
    /// # Errors
    ///
    /// libpam's.
    pub fn establish_credentials(&mut self) -> Result<(), Failure> {
        self.set_credentials(ffi::PAM_ESTABLISH_CRED)
    }

    /// Takes the credentials back (pam_setcred(3)).
    ///
    /// # Errors
    ///
    /// libpam's.
    pub fn delete_credentials(&mut self) -> Result<(), Failure> {
        self.set_credentials(ffi::PAM_DELETE_CRED)
    }

    /// Opens the session (pam_open_session(3)).
    ///
    /// # Errors
    ///
    /// libpam's.
    pub fn open_session(&mut self) -> Result<(), Failure> {
        // SAFETY: the handle is open.
        let status = unsafe { ffi::pam_open_session(self.handle, ffi::PAM_SILENT) };
        self.check("open_session", status)
    }

    /// Closes the session (pam_close_session(3)).
    ///
    /// # Errors
    ///
    /// libpam's.
    pub fn close_session(&mut self) -> Result<(), Failure> {
        // SAFETY: the handle is open.
        let status = unsafe { ffi::pam_close_session(self.handle, ffi::PAM_SILENT) };
        self.check("close_session", status)
    }

    /// PAM_USER: the name that the stack settled on, which is the one to serve.
    #[must_use]
    pub fn user(&self) -> Option<CString> {
        let mut item = ptr::null();
        // SAFETY: the handle is open; libpam stores a pointer to its own copy in `item`.
        let status = unsafe { ffi::pam_get_item(self.handle, ffi::PAM_USER, &raw mut item) };
        if status != ffi::PAM_SUCCESS || item.is_null() {
            return None;
        }
        // SAFETY: PAM_USER is a string ended by NUL, and it is copied before libpam runs again.
        Some(unsafe { CStr::from_ptr(item.cast()) }.to_owned())
    }

    /// The longest delay that the stack asked for so far (pam_fail_delay(3)).
    #[must_use]
    pub fn wanted_delay(&mut self) -> Duration {
        self.with_conversation(|conversation| conversation.delay)
    }

    /// What the modules had to say to the user since the last call; bounded.
    pub fn take_messages(&mut self) -> Vec<String> {
        self.with_conversation(|conversation| std::mem::take(&mut conversation.messages))
    }

    fn set_credentials(&mut self, flag: c_int) -> Result<(), Failure> {
        // SAFETY: the handle is open.
        let status = unsafe { ffi::pam_setcred(self.handle, flag | ffi::PAM_SILENT) };
        self.check("setcred", status)
    }

    fn set_item(&mut self, item: c_int, value: *const c_void) -> Result<(), Failure> {
        // SAFETY: the handle is open; callers pass a string (copied) or the callback that `item`
        // stands for.
        let status = unsafe { ffi::pam_set_item(self.handle, item, value) };
        self.check("set_item", status)
    }

    fn with_conversation<T>(&mut self, act: impl FnOnce(&mut Conversation) -> T) -> T {
        // SAFETY: allocated in `start`, freed in `drop`; no libpam call is under way, so this is
        // the only reference.
        act(unsafe { &mut *self.conversation })
    }

    fn check(&mut self, step: &'static str, status: c_int) -> Result<(), Failure> {
        self.status = status;
        if status == ffi::PAM_SUCCESS {
            return Ok(());
        }
        // SAFETY: pam_strerror accepts any number and ignores the handle.
        let text = unsafe { ffi::pam_strerror(self.handle, status) };
        let text = if text.is_null() {
            String::new()
        } else {
            // SAFETY: a constant string of libpam, ended by NUL.
            unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
        };
        Err(Failure { step, code: status, text })
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if !self.handle.is_null() {
            // SAFETY: opened by pam_start and ended only here.
            unsafe { ffi::pam_end(self.handle, self.status) };
        }
        // SAFETY: made by Box::into_raw in `start`; libpam has let go of it.
        drop(unsafe { Box::from_raw(self.conversation) });
    }
}

/// PAM_FAIL_DELAY: notes the delay instead of sleeping, so that every refusal can be made to last
/// equally long.
unsafe extern "C" fn note_delay(_status: c_int, microseconds: c_uint, data: *mut c_void) {
    // SAFETY: `data` is the appdata_ptr given to pam_start, and libpam runs one callback at a time.
    if let Some(conversation) = unsafe { data.cast::<Conversation>().as_mut() } {
        conversation.delay = conversation.delay.max(Duration::from_micros(microseconds.into()));
    }
}

/// The conversation (pam_conv(3)): answers each prompt without echo with the password and keeps
/// what modules say.
unsafe extern "C" fn converse(
    count: c_int,
    messages: *mut *const ffi::pam_message,
    answers: *mut *mut ffi::pam_response,
    data: *mut c_void,
) -> c_int {
    // SAFETY: `data` is the appdata_ptr given to pam_start, and libpam runs one callback at a time.
    let Some(conversation) = (unsafe { data.cast::<Conversation>().as_mut() }) else {
        return ffi::PAM_CONV_ERR;
    };
    let bounded = usize::try_from(count).ok().filter(|n| (1..=32).contains(n));
    let (Some(count), false, false) = (bounded, messages.is_null(), answers.is_null()) else {
        return ffi::PAM_CONV_ERR;
    };
    // SAFETY: libpam passes `count` pointers (Linux-PAM's reading of pam_conv(3)).
    let messages = unsafe { std::slice::from_raw_parts(messages, count) };
    // SAFETY: calloc of a small bounded size; libpam frees it with free(3).
    let array = unsafe { libc::calloc(count, size_of::<ffi::pam_response>()) };
    let array: *mut ffi::pam_response = array.cast();
    if array.is_null() {
        return ffi::PAM_BUF_ERR;
    }
    // SAFETY: just made with this length; all zero is a valid response.
    let slots = unsafe { std::slice::from_raw_parts_mut(array, count) };
    if !messages.iter().zip(&mut *slots).all(|(message, slot)| {
        // SAFETY: each points to a message or is null.
        let message = unsafe { message.as_ref() };
        message.is_none_or(|message| answer(conversation, message, slot))
    }) {
        release(slots);
        // SAFETY: made by calloc above and freed once.
        unsafe { libc::free(array.cast()) };
        return ffi::PAM_CONV_ERR;
    }
    // SAFETY: checked for null above; libpam takes the array over.
    unsafe { *answers = array };
    ffi::PAM_SUCCESS
}

/// Answers one message; false when there is no answer to it.
fn answer(
    conversation: &mut Conversation,
    message: &ffi::pam_message,
    slot: &mut ffi::pam_response,
) -> bool {
    match (message.msg_style, &conversation.password) {
        (ffi::PAM_PROMPT_ECHO_OFF, Some(password)) => {
            // SAFETY: the password ends with NUL; the module frees its copy.
            slot.resp = unsafe { libc::strdup(password.0.as_ptr().cast()) };
            !slot.resp.is_null()
        }
        (ffi::PAM_ERROR_MSG | ffi::PAM_TEXT_INFO, _) => {
            keep(conversation, message.msg);
            true
        }
        _ => false,
    }
}

fn keep(conversation: &mut Conversation, text: *const c_char) {
    if text.is_null() || conversation.messages.len() >= MAX_MESSAGES {
        return;
    }
    // SAFETY: not null, and a message of libpam ends with NUL.
    let text = unsafe { CStr::from_ptr(text) };
    let octets = text.to_bytes();
    let octets = octets.get(..MAX_MESSAGE_OCTETS).unwrap_or(octets);
    conversation.messages.push(String::from_utf8_lossy(octets).trim().to_owned());
}

/// Frees the answers that `converse` made when it gives up half-way.
fn release(slots: &mut [ffi::pam_response]) {
    for slot in slots.iter_mut().filter(|slot| !slot.resp.is_null()) {
        // SAFETY: made by strdup, so it ends with NUL.
        let length = unsafe { libc::strlen(slot.resp) };
        // SAFETY: exactly the octets of that string, ours alone.
        let octets = unsafe { std::slice::from_raw_parts_mut(slot.resp, length) };
        zeroize::Zeroize::zeroize(octets);
        // SAFETY: made by strdup and freed once.
        unsafe { libc::free(slot.resp.cast()) };
    }
}
