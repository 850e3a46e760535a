// The C interface from Rust, without a crate: a vector goes out as a tensor, is converted, and is
// dropped once, when its last tensor ends.

use std::ffi::{c_char, c_void, CStr};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicUsize, Ordering};

#[repr(C)]
struct DLTensor {
    data: *mut c_void,
    device: [i32; 2],
    ndim: i32,
    code: u8,
    bits: u8,
    lanes: u16,
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}

#[repr(C)]
struct DLManagedTensorVersioned {
    version: [u32; 2],
    manager_ctx: *mut c_void,
    deleter: unsafe extern "C" fn(*mut DLManagedTensorVersioned),
    flags: u64,
    dl_tensor: DLTensor,
}

#[repr(C)]
struct Lease {
    context: *mut c_void,
    release: unsafe extern "C" fn(*mut c_void),
}

// A handle that is never looked into.
#[repr(C)]
struct Error {
    _private: [u8; 0],
}

// An older struct than the library's: only the members that this program sets.
#[repr(C)]
struct Request {
    struct_size: usize,
    dtype: *const c_char,
}

#[link(name = "dlbridge")]
extern "C" {
    fn dlbridge_abi_version() -> u32;
    fn dlbridge_own(
        tensor: *const DLTensor,
        flags: u64,
        lease: *const Lease,
        out: *mut *mut DLManagedTensorVersioned,
        error: *mut *mut Error,
    ) -> i32;
    fn dlbridge_convert(
        tensor: *mut DLManagedTensorVersioned,
        library: *const c_void,
        target: *const c_void,
        policy: *const c_void,
        request: *const Request,
        out: *mut *mut DLManagedTensorVersioned,
        error: *mut *mut Error,
    ) -> i32;
    fn dlbridge_error_message(error: *const Error) -> *const c_char;
    fn dlbridge_error_free(error: *mut Error);
}

static DROPPED: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" fn drop_vector(context: *mut c_void) {
    drop(Box::from_raw(context as *mut Vec<f32>));
    DROPPED.fetch_add(1, Ordering::SeqCst);
}

// A tensor that ends with its scope.
struct Tensor(*mut DLManagedTensorVersioned);

impl Tensor {
    fn of(values: Vec<f32>) -> Result<Tensor, String> {
        let mut kept = Box::new(values);
        let mut shape = [kept.len() as i64];
        let described = DLTensor {
            data: kept.as_mut_ptr() as *mut c_void,
            device: [1, 0],
            ndim: 1,
            code: 2,
            bits: 32,
            lanes: 1,
            shape: shape.as_mut_ptr(),
            strides: null_mut(),
            byte_offset: 0,
        };
        let lease = Lease { context: Box::into_raw(kept) as *mut c_void, release: drop_vector };
        told(|out, error| unsafe { dlbridge_own(&described, 0, &lease, out, error) })
    }

    fn cast(mut self, dtype: &CStr) -> Result<Tensor, String> {
        let request = Request { struct_size: std::mem::size_of::<Request>(), dtype: dtype.as_ptr() };
        let taken = std::mem::replace(&mut self.0, null_mut());
        told(|out, error| unsafe {
            dlbridge_convert(taken, null(), null(), null(), &request, out, error)
        })
    }

    fn values<T: Copy>(&self) -> Vec<T> {
        let tensor = unsafe { &(*self.0).dl_tensor };
        let count = unsafe { *tensor.shape } as usize;
        unsafe { std::slice::from_raw_parts(tensor.data as *const T, count) }.to_vec()
    }
}

impl Drop for Tensor {
    fn drop(&mut self) {
        if !self.0.is_null() {
            unsafe { ((*self.0).deleter)(self.0) }
        }
    }
}

fn told(
    call: impl FnOnce(*mut *mut DLManagedTensorVersioned, *mut *mut Error) -> i32,
) -> Result<Tensor, String> {
    let mut out = null_mut();
    let mut error = null_mut();
    if call(&mut out, &mut error) == 0 {
        return Ok(Tensor(out));
    }
    assert!(out.is_null());
    let message = unsafe { CStr::from_ptr(dlbridge_error_message(error)) };
    let text = message.to_string_lossy().into_owned();
    unsafe { dlbridge_error_free(error) };
    Err(text)
}

fn main() {
    assert_eq!(unsafe { dlbridge_abi_version() } >> 16, 1);

    let tensor = Tensor::of(vec![1.0, 2.0, 3.5]).unwrap();
    assert_eq!(tensor.values::<f32>(), [1.0, 2.0, 3.5]);
    let wide = tensor.cast(c"float64").unwrap();
    assert_eq!(DROPPED.load(Ordering::SeqCst), 1);
    assert_eq!(wide.values::<f64>(), [1.0, 2.0, 3.5]);

    let refused = Tensor::of(vec![1.0]).unwrap().cast(c"float").err().unwrap();
    assert!(refused.contains("use one of bool, int8"), "{refused}");
    assert_eq!(DROPPED.load(Ordering::SeqCst), 2);
    println!("{refused}");
}
