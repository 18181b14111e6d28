"""How the processes of the box talk: typed messages over local sockets, audio through shared memory."""
