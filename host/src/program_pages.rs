//! The pages of the program's own file that a process has mapped.

/// Unmaps the code and the constants that were used so far: what the start runs through, and the compiled components,
/// which it copies, is more than what a push needs. The pages stay in the system's cache of files, so that one that is
/// used again is mapped again without being read; resident memory is less by what is not.
#[cfg(target_os = "linux")]
pub fn unmap() {
    // SAFETY: `unmap_object` has the signature that the C library asks for, and does not keep what it is given.
    #[allow(unsafe_code)]
    unsafe {
        libc::dl_iterate_phdr(Some(unmap_object), std::ptr::null_mut());
    }
}

/// Elsewhere, nothing is unmapped.
#[cfg(not(target_os = "linux"))]
pub fn unmap() {}

/// Unmaps the read-only segments of one loaded object, and returns that it was the last to be looked at: the first is
/// the program itself (dl_iterate_phdr(3)).
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
unsafe extern "C" fn unmap_object(
    object: *mut libc::dl_phdr_info,
    _size: usize,
    _data: *mut libc::c_void,
) -> libc::c_int {
    const LAST: libc::c_int = 1;
    let page = rustix::param::page_size();
    // SAFETY: the C library gives a valid object with as many headers as it says, for as long as this call.
    let (base, headers) = unsafe {
        let object = &*object;
        (object.dlpi_addr, std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)))
    };
    for segment in
        headers.iter().filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0)
    {
        let (Ok(start), Ok(length)) =
            (usize::try_from(base + segment.p_vaddr), usize::try_from(segment.p_memsz))
        else {
            continue;
        };
        let first = start - start % page;
        // SAFETY: a segment without the right to write is what the file has, also where it is mapped again. What the
        // loader writes to, and protects then, is in a writable segment. A failure leaves all as it was.
        unsafe {
            libc::madvise(
                std::ptr::with_exposed_provenance_mut(first),
                start + length - first,
                libc::MADV_DONTNEED,
            );
        }
    }
    LAST
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// KiB of files that are mapped (proc_pid_status(5)).
    fn resident_file() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    fn what_was_used_so_far_is_unmapped_and_can_be_used_again() {
        let before = resident_file();
        unmap();
        let after = resident_file();
        assert!(after < before, "{after} KiB in place of {before}");
        // The constants and the code are still there.
        assert_eq!(env!("CARGO_PKG_NAME").to_owned() + "!", "pushlet!");
    }
}
