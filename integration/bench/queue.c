//go:build ignore

/* Accepts every packet of NFQUEUE 1, with one blocking recv and one send for each packet
   and without a library. Writes a line when it listens. */

#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <linux/netlink.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { QUEUE = 1, COPY = 128 };

struct message {
	struct nlmsghdr header;
	struct nfgenmsg queue;
	struct nlattr attribute;
	char value[8];
};

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void fill(struct message *m, int type, int flags, int attribute, const void *value, size_t size)
{
	memset(m, 0, sizeof *m);
	m->header.nlmsg_len = NLMSG_LENGTH(sizeof m->queue) + NLA_HDRLEN + NLA_ALIGN(size);
	m->header.nlmsg_type = NFNL_SUBSYS_QUEUE << 8 | type;
	m->header.nlmsg_flags = NLM_F_REQUEST | flags;
	m->queue.version = NFNETLINK_V0;
	m->queue.res_id = htons(QUEUE);
	m->attribute.nla_len = NLA_HDRLEN + size;
	m->attribute.nla_type = attribute;
	memcpy(m->value, value, size);
}

static char buffer[65536];

static void configure(int fd, int attribute, const void *value, size_t size)
{
	struct message m;
	struct nlmsghdr *answer = (struct nlmsghdr *)buffer;

	fill(&m, NFQNL_MSG_CONFIG, NLM_F_ACK, attribute, value, size);
	if (send(fd, &m, m.header.nlmsg_len, 0) < 0)
		fail("configuring the queue");
	if (recv(fd, buffer, sizeof buffer, 0) < 0)
		fail("configuring the queue");
	errno = -((struct nlmsgerr *)NLMSG_DATA(answer))->error;
	if (errno)
		fail("configuring the queue");
}

int main(void)
{
	struct nfqnl_msg_config_cmd bind_queue = { .command = NFQNL_CFG_CMD_BIND };
	struct nfqnl_msg_config_params params = { .copy_range = htonl(COPY), .copy_mode = NFQNL_COPY_PACKET };
	struct nfqnl_msg_verdict_hdr accept_packet = { .verdict = htonl(NF_ACCEPT) };
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	struct message verdict;
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);

	if (fd < 0 || bind(fd, (struct sockaddr *)&kernel, sizeof kernel) < 0)
		fail("opening a netlink socket");
	configure(fd, NFQA_CFG_CMD, &bind_queue, sizeof bind_queue);
	configure(fd, NFQA_CFG_PARAMS, &params, sizeof params);
	fill(&verdict, NFQNL_MSG_VERDICT, 0, NFQA_VERDICT_HDR, &accept_packet, sizeof accept_packet);
	puts("ready");
	fflush(stdout);
	for (;;) {
		ssize_t n = recv(fd, buffer, sizeof buffer, 0);
		struct message *m = (struct message *)buffer;

		if (n < 0 && (errno == EINTR || errno == ENOBUFS))
			continue;
		if (n < 0)
			fail("reading the queue");
		/* A packet's header is its message's first attribute. */
		if (m->attribute.nla_type != NFQA_PACKET_HDR)
			continue;
		accept_packet.id = ((struct nfqnl_msg_packet_hdr *)m->value)->packet_id;
		memcpy(verdict.value, &accept_packet, sizeof accept_packet);
		if (send(fd, &verdict, verdict.header.nlmsg_len, 0) < 0)
			fail("giving a verdict");
	}
}
