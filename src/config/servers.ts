/** The name servers to ask: those of the settings, else those of the system. */
import type { NameServer } from '../base/dns-wire.ts'
import { parseServer } from './lines.ts'
import type { LiveConfig } from './live.ts'

/** The same array as long as they are the same. */
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
