/** From the configuration in force to what inspectors are told of it. */
import type { Snapshot } from '../../config/snapshot.ts'
import type { InspectConfig } from './look.ts'

/**
 * The same object as long as nothing of it changed: a child is told it once. `hostname` names the
 * gateway while it has no domain; `modelPath` gives the
 * file of what was learnt, or null.
 */
export function inspectConfigs(
  hostname: string,
  modelPath: () => string | null,
): (snapshot: Snapshot) => InspectConfig {
  let last: { readonly snapshot: Snapshot; readonly config: InspectConfig } | null = null
  return (snapshot) => {
    const path = modelPath()
    if (last !== null && last.snapshot === snapshot && last.config.modelPath === path)
      return last.config
    const domains = [...snapshot.domains.keys()].sort()
    const config: InspectConfig = {
      version: (last?.config.version ?? 0) + 1,
      settings: snapshot.settings,
      // The same on all nodes (RFC 8601 section 2.5): a domain of ours, not the name of one of them.
      authority: domains[0] ?? hostname,
      domains,
      detection: snapshot.detection,
      signing: signersOf(snapshot),
      modelPath: path,
    }
    last = { snapshot, config }
    return config
  }
}

function signersOf({ signing }: Snapshot): InspectConfig['signing'] {
  const active = signing.filter(({ state }) => state === 'active')
  const byDomain = Map.groupBy(active, ({ domain }) => domain)
  return Object.fromEntries(
    [...byDomain].map(([name, keys]) => [
      name,
      keys.map(({ domain, selector, algorithm }) => ({ domain, selector, algorithm })),
    ]),
  )
}
