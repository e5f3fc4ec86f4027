// Package netlab makes small networks from network namespaces (hosts) and veth pairs
// (cables). All packets go through the real kernel, and none leaves the machine. The
// network disappears when its last process ends.
//
// A program that wants such a network runs itself again in new user, network, mount and
// process namespaces ([Command]). In them it is root, without being root outside. All
// processes that it starts end with the namespaces.
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

// environment marks a process that Command started.
const environment = "KNOCKWALL_NETLAB"

// Inside reports whether this process runs in namespaces of Command.
func Inside() bool { return os.Getenv(environment) != "" }

// ErrForbidden means that this machine allows no new namespaces.
var ErrForbidden = errors.New("this machine forbids new network namespaces. Allow them with\n" +
	"    sysctl -w kernel.unprivileged_userns_clone=1               (Debian before 11)\n" +
	"    sysctl -w kernel.apparmor_restrict_unprivileged_userns=0   (Ubuntu from 23.10)\n" +
	"    sysctl -w user.max_user_namespaces=10000                   (where it is 0)\n" +
	"or run this as root; in a container, add the capability SYS_ADMIN")

// Command returns a command that runs this program with the arguments in new namespaces.
// The command ends when the thread that starts it does, so lock that thread.
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

// isolation returns how this process can get namespaces in which it may configure a
// network: as root, or with a new user namespace. Root's are preferred, because some
// sysctls belong to the initial user namespace.
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
		// AppArmor allows the namespace but withholds its capabilities, so a probe is
		// needed.
		probe := exec.Command("/proc/self/exe")
		probe.Env = []string{environment + "=" + probing}
		probe.SysProcAttr = attributes
		if probe.Run() == nil {
			return attributes, nil
		}
	}
	return nil, ErrForbidden
}

// probing is the value of environment in a process that only probes whether it can bring
// up an interface.
const probing = "probe"

func init() {
	if !Inside() {
		return
	}
	// Mounts in here must not appear outside.
	err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	// Mount a /proc of this process namespace. In a container with a masked /proc this
	// fails, and the old one is sufficient for most tests.
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

// Here returns the host on which this process is, with lo up.
func Here() (*Host, error) {
	h := &Host{}
	return h, onThread(func() (err error) {
		h.namespace, err = ownNamespace()
		return errors.Join(err, loopbackUp())
	})
}

// NewHost makes a host with lo up. The host disappears when it is closed and no process
// runs on it.
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

// ownNamespace opens the network namespace of the calling thread. The path works even if
// /proc shows another process namespace than the thread's.
func ownNamespace() (*os.File, error) { return os.Open("/proc/thread-self/ns/net") }

// Close releases the host.
func (h *Host) Close() error { return h.namespace.Close() }

// Do runs f on the host. Sockets that f opens and processes that it starts stay on the
// host. Goroutines that it starts do not run there.
func (h *Host) Do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(h.namespace.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("entering a network namespace: %w", err)
		}
		return f()
	})
}

// onThread runs f on a thread that ends afterwards, so that no other goroutine runs in
// the namespace that f entered.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

// links numbers the cables, because interface names must be unique on a host.
var links atomic.Int32

// Link connects two hosts with a cable. Each end gets its addresses and is up. Link
// returns the names of both ends.
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

// introduce adds the other end's addresses to a host's neighbour table, because neighbour
// discovery takes a second on a new cable.
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
			address.Flags = unix.IFA_F_NODAD // usable at once, without duplicate address detection
		}
		if err := netlink.AddrAdd(link, address); err != nil {
			return fmt.Errorf("giving %s the address %s: %w", name, p, err)
		}
	}
	return netlink.LinkSetUp(link)
}
