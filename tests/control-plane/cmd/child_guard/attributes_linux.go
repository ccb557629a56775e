package main

import "syscall"

// attributes gives the command its own process group, and the kernel kills it when child_guard ends.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
