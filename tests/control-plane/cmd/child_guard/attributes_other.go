//go:build !linux

package main

import "syscall"

// attributes gives the command its own process group; a parent death signal is Linux's alone.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
