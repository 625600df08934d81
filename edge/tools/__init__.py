"""Tools that are executed: built-in ones, own functions, command lines, HTTP, MCP servers; and the agent loop.

executable  what a tool is: schema, effects, the function behind it
toolbox     the tools of a run, by name
agent       call -> policy -> run -> result fed back, until an answer
policy      allow, ask or deny, by tool and by argument
"""
