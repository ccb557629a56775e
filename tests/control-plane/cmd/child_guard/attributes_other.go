//go:build !linux

package main

import "syscall"

// attributes gives the command its own process group; only Linux has a parent death signal.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
