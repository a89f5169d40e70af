"""What happens, told: to the sockets of clients, to webhooks, and to whoever comes later."""
