"""Words for operators that ran on the CPU although a device was to run them."""

from collections.abc import Collection

from emacheck.counted import counted, the_first

SHOWN = 6


def ran_on_the_cpu(
    device: str, *, fallback: Collection[str] = (), on_host: Collection[str] = (), allowed: Collection[str] = ()
) -> tuple[str, ...]:
    """Return what is to be known of operators that say nothing about a device, a clause each.

    Args:
        device: What the device is called.
        fallback: Operators that its fallback ran, for want of a kernel of their own.
        on_host: Operators whose inputs were brought to the CPU, and the results back.
        allowed: Settings that let the CPU run operators in the device's place, unseen.

    Example:
        >>> ran_on_the_cpu("sdaa", fallback=["aten::relu"])
        ('1 operator ran through the fallback of sdaa, as a rule on the CPU, and says nothing about it: aten::relu',)
    """
    parts = (
        (fallback, f"ran through the fallback of {device}, as a rule on the CPU"),
        (on_host, f"ran on the CPU, to which the program itself brought what {device} had computed"),
    )
    said = [
        f"{counted(len(names), 'operator')} {how}, and {'says' if len(names) == 1 else 'say'} nothing about it: "
        f"{the_first(sorted(names), SHOWN)}"
        for names, how in parts
        if names
    ]
    if allowed:
        settings = the_first(sorted(allowed), SHOWN)
        said.append(f"operators of {device} may have run on the CPU, unseen, for the environment allows it: {settings}")
    return tuple(said)
