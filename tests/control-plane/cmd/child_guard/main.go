// Command child_guard runs a command until its own standard input ends.
//
//	child_guard [-pid-file FILE] [-remove DIR] [-- COMMAND ARG ...]
//
// The test process holds the other end of that pipe. When it ends, even by SIGKILL, the kernel closes the pipe, and
// child_guard kills the command's whole process group. When child_guard is killed itself, the kernel kills the command
// (parent death signal, Linux).
//
// Lines on standard input: TERM, KILL, INT, STOP and CONT are sent to the command as signals; "keep" cancels -remove.
// When the command ends by itself, child_guard ends with its exit code (128 + signal when a signal ended it).
// Without a command, child_guard only waits for the end of its input, and then removes DIR.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

var signals = map[string]syscall.Signal{
	"TERM": syscall.SIGTERM,
	"KILL": syscall.SIGKILL,
	"INT":  syscall.SIGINT,
	"STOP": syscall.SIGSTOP,
	"CONT": syscall.SIGCONT,
}

func main() {
	// The parent death signal belongs to the thread that started the command, not to the process.
	runtime.LockOSThread()

	pidFile := flag.String("pid-file", "", "write the command's process id here")
	remove := flag.String("remove", "", "remove this folder at the end")
	flag.Parse()

	// Ctrl-C reaches every process of the terminal, but only the end of the input ends this program. The signals are
	// caught and not ignored, because the command would inherit an ignored signal.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)

	var keep atomic.Bool
	code := 0
	if flag.NArg() == 0 {
		obey(0, &keep)
	} else {
		code = run(flag.Args(), *pidFile, &keep)
	}
	if *remove != "" && !keep.Load() {
		removeAll(*remove)
	}
	os.Exit(code)
}

// run returns the command's exit code.
func run(args []string, pidFile string, keep *atomic.Bool) int {
	command := exec.Command(args[0], args[1:]...)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	command.SysProcAttr = attributes()
	if err := command.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "child_guard:", err)
		return 127
	}
	pid := command.Process.Pid
	if pidFile != "" {
		if err := writeFile(pidFile, strconv.Itoa(pid)); err != nil {
			fmt.Fprintln(os.Stderr, "child_guard:", err)
		}
	}
	go func() {
		obey(pid, keep)
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}()
	err := command.Wait()
	_ = syscall.Kill(-pid, syscall.SIGKILL) // processes that the command left behind
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return 128 + int(status.Signal())
		}
		return exit.ExitCode()
	default:
		fmt.Fprintln(os.Stderr, "child_guard:", err)
		return 126
	}
}

// obey sends the signals that the input names to the process group of pid, and returns when the input ends.
func obey(pid int, keep *atomic.Bool) {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if lines.Text() == "keep" {
			keep.Store(true)
		} else if sig, known := signals[lines.Text()]; known && pid != 0 {
			_ = syscall.Kill(-pid, sig)
		}
	}
}

// writeFile writes a file in one step, so that a reader never sees a part of it.
func writeFile(name, text string) error {
	if err := os.WriteFile(name+".new", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// removeAll removes a folder. It tries again for 2 s, because processes that are being killed may still write there.
func removeAll(dir string) {
	for range 20 {
		_ = os.RemoveAll(dir)
		time.Sleep(100 * time.Millisecond)
		if _, err := os.Stat(dir); os.IsNotExist(err) {
			return
		}
	}
}
