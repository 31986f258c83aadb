/** What the settings say of the DNS: the name servers to ask, the lists that are asked. */
import type { NameServer } from '../base/dns-wire.ts'
import type { ListKind } from '../base/list-names.ts'
import { parseListZone, parseServer } from './lines.ts'
import type { LiveConfig } from './live.ts'
import type { Settings } from './schema.ts'

/** Those of the settings, else those of the system. The same array as long as they are the same. */
export function nameServers(
  live: LiveConfig,
  system: () => readonly NameServer[],
): () => readonly NameServer[] {
  let lines = ''
  let servers: readonly NameServer[] = []
  return () => {
    const set = live.current.settings['dns.servers']
    const text = set.join('\n')
    if (text !== lines) {
      lines = text
      servers = set.flatMap((line) => parseServer(line) ?? [])
    }
    return servers.length > 0 ? servers : system()
  }
}

/** All lists of the settings, and what each of them lists. */
export function listZones(live: LiveConfig): () => ReadonlyMap<string, ListKind> {
  let last: Settings | null = null
  let zones: ReadonlyMap<string, ListKind> = new Map()
  return () => {
    const { settings } = live.current
    if (settings !== last) {
      last = settings
      zones = new Map([
        ...zonesOf(settings['content.linkLists'], 'name'),
        ...zonesOf(settings['connection.lists'], 'address'),
      ])
    }
    return zones
  }
}

function zonesOf(
  lines: readonly string[],
  kind: ListKind,
): readonly (readonly [string, ListKind])[] {
  return lines.flatMap((line) => {
    const list = parseListZone(line)
    return list === null ? [] : [[list.zone, kind] as const]
  })
}
