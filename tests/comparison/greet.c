/* The least that a server can do: says a greeting, and no more. Without arguments on its standard
 * output, which is the connection, for a service that is started for each: what that costs is what
 * systemd costs. With -D PORT it accepts by itself, and forks for each connection: no server that
 * forks is faster. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int greet(int connection)
{
	static const char greeting[] = "+OK\r\n";

	return write(connection, greeting, sizeof(greeting) - 1) == sizeof(greeting) - 1 ? 0 : 1;
}

static int serve(int port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
	int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) || listen(listener, 1024))
		return 1;
	signal(SIGCHLD, SIG_IGN); /* nobody waits for the children */
	for (;;) {
		int connection = accept(listener, NULL, NULL);

		if (connection < 0)
			continue;
		if (fork() == 0)
			_exit(greet(connection));
		close(connection);
	}
}

int main(int argc, char **argv)
{
	return argc == 3 && !strcmp(argv[1], "-D") ? serve(atoi(argv[2])) : greet(1);
}
