/** Which recipients we take: the domains of the snapshot, or any for networks that may relay. */
import type { Snapshot } from '../../config/snapshot.ts'
import { type Address, hidesRoute } from '../../message/address.ts'
import { type Reply, reply } from '../../message/reply.ts'

const NO_RELAY = reply(550, '5.7.1', 'Relaying denied')
export const NO_SUCH_USER = reply(550, '5.1.1', 'No such recipient here')

/**
 * The address that a RCPT means, or the refusal. Never an open relay: without `outbound` only
 * exactly listed domains, and no local part that another system could read as a route.
 */
export function checkRecipient(
  address: Address | null,
  snapshot: Snapshot,
  outbound: boolean,
): { readonly address: string } | Reply {
  if (address === null) return reply(501, '5.1.3', 'A recipient must not be empty')
  if (address.domain === '') return bareLocalPart(address, snapshot)
  const domain = snapshot.domains.get(address.domain)
  if (domain === undefined) {
    return outbound && !address.domain.startsWith('[') ? { address: address.text } : NO_RELAY
  }
  // RFC 5321 section 4.5.1: postmaster of a domain that we take mail for always exists.
  if (address.local.toLowerCase() === 'postmaster') return { address: address.text }
  if (hidesRoute(address.local)) return NO_RELAY
  if (domain.recipients !== null && !knows(domain.recipients, address.local)) return NO_SUCH_USER
  return { address: address.text }
}

/** Postmaster is there for everybody, also for whom we take no other mail from. */
export function mustExist(address: string): boolean {
  return /^postmaster@/i.test(address)
}

/** `<postmaster>` needs no domain (RFC 5321 section 4.5.1): that of our first domain is meant. */
function bareLocalPart(address: Address, snapshot: Snapshot): { readonly address: string } | Reply {
  const first = snapshot.domains.keys().next().value
  if (address.local.toLowerCase() !== 'postmaster' || first === undefined) return NO_RELAY
  return { address: `${address.local}@${first}` }
}

const indexes = new WeakMap<readonly string[], ReadonlySet<string>>()

/** The lists come from a frozen snapshot: one index each, made at its first use. */
function knows(recipients: readonly string[], local: string): boolean {
  let index = indexes.get(recipients)
  if (index === undefined) {
    index = new Set(recipients)
    indexes.set(recipients, index)
  }
  return index.has(local.toLowerCase())
}
