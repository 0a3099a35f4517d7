def tasks(*a): return []
def fail_calls(*a): pass
