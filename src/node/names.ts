/** The DNS as inspectors and port 25 ask it: the name servers of the settings, and the lists. */
import type { Clock } from '../base/clock.ts'
import { SystemDnsWire } from '../base/dns-wire.ts'
import { ListNames } from '../base/list-names.ts'
import { NameServers, systemServers } from '../base/nameserver.ts'
import type { Observer } from '../base/observe.ts'
import type { Random } from '../base/random.ts'
import type { Address } from '../cli/world.ts'
import type { LiveConfig } from '../config/live.ts'
import { listZones, nameServers } from '../config/servers.ts'

export type Names = {
  readonly client: NameServers
  readonly lists: ListNames
  /** How long one question may take, as the settings have it now. */
  readonly timeoutMs: () => number
}

/** `servers`: asked when the settings name none, in place of those of the system. */
export function openNames(
  live: LiveConfig,
  servers: readonly Address[] | undefined,
  deps: { readonly clock: Clock; readonly random: Random; readonly observer: Observer },
): Names {
  const { clock, observer } = deps
  const timeoutMs = (): number => live.current.settings['dns.timeout'] * 1_000
  const client = new NameServers({
    ...deps,
    wire: new SystemDnsWire(),
    servers: nameServers(live, servers === undefined ? systemServers(clock) : () => servers),
    timeoutMs,
  })
  const lists = new ListNames({
    clock,
    observer,
    names: client,
    zones: listZones(live),
    isSilent: () => client.trouble !== null,
  })
  return { client, lists, timeoutMs }
}
