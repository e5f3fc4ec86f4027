// Package netlab makes small networks out of the kernel's own parts: network
// namespaces for hosts, and veth pairs for the cables between them. Everything
// that is sent there goes through the real kernel, nothing of it leaves the
// machine, and all of it is gone when the last process in it ends.
//
// A program that wants such a network runs itself once more in new user,
// network, mount and process namespaces ([Command]), in which it is root without
// being root outside, and with which all that it has started ends.
package netlab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// environment marks a process that Command has started.
const environment = "KNOCKWALL_NETLAB"

// Inside reports whether this process runs in namespaces of its own.
func Inside() bool { return os.Getenv(environment) != "" }

// ErrForbidden is why this machine gives nobody namespaces of their own.
var ErrForbidden = errors.New("this machine forbids network namespaces of one's own. Allow them with\n" +
	"    sysctl -w kernel.unprivileged_userns_clone=1               (Debian before 11)\n" +
	"    sysctl -w kernel.apparmor_restrict_unprivileged_userns=0   (Ubuntu from 23.10)\n" +
	"    sysctl -w user.max_user_namespaces=10000                   (where it is 0)\n" +
	"or run this as root; in a container, give that the capability SYS_ADMIN")

// Command returns a command that runs this program with the given arguments in
// new namespaces. It ends when the thread that starts it does: lock it.
func Command(arguments ...string) (*exec.Cmd, error) {
	attributes, err := isolation()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, arguments...)
	cmd.Env = append(os.Environ(), environment+"=1")
	cmd.SysProcAttr = attributes
	return cmd, nil
}

// isolation finds out how this process can get namespaces in which it may
// configure a network: as root, or by a user namespace of its own. Root's are the
// better ones, as some of the kernel's knobs are the initial user namespace's.
func isolation() (*syscall.SysProcAttr, error) {
	const own = unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID
	withUser := &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | own,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   unix.SIGKILL,
	}
	asRoot := &syscall.SysProcAttr{Cloneflags: own, Pdeathsig: unix.SIGKILL}
	ways := []*syscall.SysProcAttr{withUser}
	if os.Geteuid() == 0 {
		ways = []*syscall.SysProcAttr{asRoot, withUser}
	}
	for _, attributes := range ways {
		// AppArmor grants the namespace and withholds the capabilities in it, so
		// this has to be tried out.
		probe := exec.Command("/proc/self/exe")
		probe.Env = []string{environment + "=" + probing}
		probe.SysProcAttr = attributes
		if probe.Run() == nil {
			return attributes, nil
		}
	}
	return nil, ErrForbidden
}

// probing is the value of environment in a process that is only to find out
// whether it can bring up an interface.
const probing = "probe"

func init() {
	if !Inside() {
		return
	}
	// What is mounted here is not to appear outside.
	err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	// A /proc that knows this process namespace. In a container whose own /proc is
	// masked it cannot be had, and the former one does for most.
	_ = unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	if os.Getenv(environment) == probing {
		if errors.Join(err, loopbackUp()) != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
}

func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

// Host is a network namespace.
type Host struct{ namespace *os.File }

// Here returns the host that this process is on, with its loopback up.
func Here() (*Host, error) {
	h := &Host{}
	return h, onThread(func() (err error) {
		h.namespace, err = ownNamespace()
		return errors.Join(err, loopbackUp())
	})
}

// NewHost makes a host, with its loopback up. It is gone when it is closed and
// nothing runs on it any more.
func NewHost() (*Host, error) {
	h := &Host{}
	return h, onThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("making a network namespace: %w", err)
		}
		h.namespace, err = ownNamespace()
		return errors.Join(err, loopbackUp())
	})
}

// ownNamespace opens the network namespace of the calling thread, by a path that
// works even if /proc shows another process namespace than the thread's.
func ownNamespace() (*os.File, error) { return os.Open("/proc/thread-self/ns/net") }

// Close lets go of the host.
func (h *Host) Close() error { return h.namespace.Close() }

// Do runs f on the host. Sockets that f opens and processes that it starts are
// on the host and stay there; goroutines that it starts are not.
func (h *Host) Do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(h.namespace.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("entering a network namespace: %w", err)
		}
		return f()
	})
}

// onThread runs f on a thread that ends with it, so that whatever namespace f
// has entered, no other goroutine is ever run there.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

// links numbers the cables, as interface names are unique on a host.
var links atomic.Int32

// Link connects two hosts with a cable. Each end gets the addresses that are
// given for it, and is up. It returns the names of both ends.
func Link(a, b *Host, addressesA, addressesB []netip.Prefix) (nameA, nameB string, err error) {
	n := links.Add(1)
	nameA, nameB = fmt.Sprintf("a%d", n), fmt.Sprintf("b%d", n)
	err = a.Do(func() error {
		veth := &netlink.Veth{
			LinkAttrs:     netlink.LinkAttrs{Name: nameA},
			PeerName:      nameB,
			PeerNamespace: netlink.NsFd(int(b.namespace.Fd())),
		}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("making a veth pair: %w", err)
		}
		return configure(nameA, addressesA)
	})
	if err == nil {
		err = b.Do(func() error { return configure(nameB, addressesB) })
	}
	if err == nil {
		err = introduce(a, nameA, b, nameB, addressesB)
	}
	if err == nil {
		err = introduce(b, nameB, a, nameA, addressesA)
	}
	return nameA, nameB, err
}

// introduce tells a host the other end's addresses, as looking for a neighbour
// takes a second on a cable that has just come up.
func introduce(h *Host, name string, other *Host, otherName string, addresses []netip.Prefix) error {
	var hardware net.HardwareAddr
	err := other.Do(func() error {
		link, err := netlink.LinkByName(otherName)
		if err == nil {
			hardware = link.Attrs().HardwareAddr
		}
		return err
	})
	if err != nil {
		return err
	}
	return h.Do(func() error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		for _, p := range addresses {
			neighbour := &netlink.Neigh{
				LinkIndex: link.Attrs().Index, State: unix.NUD_PERMANENT,
				IP: p.Addr().AsSlice(), HardwareAddr: hardware,
			}
			if err := netlink.NeighAdd(neighbour); err != nil {
				return fmt.Errorf("introducing %s to its neighbour %s: %w", name, p.Addr(), err)
			}
		}
		return nil
	})
}

func configure(name string, addresses []netip.Prefix) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	for _, p := range addresses {
		address := &netlink.Addr{
			IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())},
		}
		if p.Addr().Is6() {
			address.Flags = unix.IFA_F_NODAD // usable at once
		}
		if err := netlink.AddrAdd(link, address); err != nil {
			return fmt.Errorf("giving %s the address %s: %w", name, p, err)
		}
	}
	return netlink.LinkSetUp(link)
}
