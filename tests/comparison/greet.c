/* The least that a service started for each connection can do: says a greeting on its standard
 * output, which is the connection, and exits. What it costs is what systemd costs. */
#include <unistd.h>

int main(void)
{
	static const char greeting[] = "+OK\r\n";

	return write(1, greeting, sizeof(greeting) - 1) == sizeof(greeting) - 1 ? 0 : 1;
}
