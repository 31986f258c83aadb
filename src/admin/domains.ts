/** Domains: which mail is ours, where it goes, who exists. */
import { RefusalError } from '../base/errors.ts'
import type { LiveConfig } from '../config/live.ts'
import {
  readDomainName,
  readEnforce,
  readNextHops,
  readRecipients,
  readThreshold,
} from '../config/validate.ts'
import { formatNextHop, parseNextHop } from '../message/nexthop.ts'
import type { Changes } from '../store/changes.ts'
import { mustAct } from './authorise.ts'
import type { Admin, NextHopProbe } from './contract.ts'

type DomainsPart = Pick<Admin, 'domains' | 'putDomain' | 'removeDomain' | 'probeNextHop'>

export function domainsPart(deps: {
  readonly live: LiveConfig
  readonly changes: Changes
  readonly probe: (hop: string) => Promise<NextHopProbe>
  /** Of signing keys that were removed. */
  readonly forgetSecrets: (author: string) => void
}): DomainsPart {
  const { live, changes, probe, forgetSecrets } = deps
  return {
    domains: () => [...live.current.domains.values()].sort((a, b) => (a.name < b.name ? -1 : 1)),

    putDomain(author, rawName, input) {
      mustAct(author)
      const name = readDomainName(rawName)
      const { nextHops, recipients, hold, reject, enforce, seen = null } = input
      // What is not given stays as the cells say it, also while an older configuration is in force.
      const patch = {
        name,
        ...(nextHops === undefined ? {} : { nextHops: readNextHops(nextHops) }),
        ...(recipients === undefined
          ? {}
          : { recipients: recipients === null ? null : readRecipients(name, recipients) }),
        ...(hold === undefined ? {} : { hold: readThreshold('hold', hold) }),
        ...(reject === undefined ? {} : { reject: readThreshold('reject', reject) }),
        ...(enforce === undefined ? {} : { enforce: readEnforce(enforce) }),
      }
      return changes.putDomain(author.name, patch, seen)
    },

    removeDomain(author, rawName) {
      mustAct(author)
      changes.removeDomain(author.name, rawName.trim().replace(/\.$/, '').toLowerCase())
      forgetSecrets(author.name)
    },

    async probeNextHop(hop) {
      const parsed = parseNextHop(hop.trim())
      if (parsed === null) {
        throw new RefusalError(
          'invalid',
          'nextHops',
          `${JSON.stringify(hop.slice(0, 80))} is not a next hop.`,
          'Enter smtp://HOST:PORT or lmtp://HOST:PORT, like smtp://mail.example.com:25.',
        )
      }
      return probe(formatNextHop(parsed))
    },
  }
}
