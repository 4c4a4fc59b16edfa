-- Each node reads the log by itself again.
DROP FUNCTION realtime.leave_node, realtime.node_states, realtime.announce_node, realtime.ask_to_step_down,
    realtime.leader_now, realtime.lead, realtime.leader_lock;
DROP TABLE realtime.nodes, realtime.leader;
