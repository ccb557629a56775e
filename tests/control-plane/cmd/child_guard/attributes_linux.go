package main

import "syscall"

// attributes gives the command its own process group, and death with leash.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
