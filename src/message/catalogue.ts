/**
 * Every rule that this gateway knows by itself: what it usually weighs and what it says. For the
 * table of scores; what an inspector finds may weigh more or less by what it saw.
 */

export type RuleFact = {
  readonly rule: string
  /** The usual weight. */
  readonly score: number
  /** A whole sentence. */
  readonly says: string
}

export const CATALOGUE: readonly RuleFact[] = [
  { rule: 'DNSBL_UNKNOWN', score: 0, says: 'A list did not say whether it has the client.' },
  { rule: 'RDNS_NONE', score: 2, says: 'The address of the client has no name.' },
  { rule: 'RDNS_BROKEN', score: 1, says: 'The name of the client does not lead back to it.' },
  { rule: 'RDNS_UNKNOWN', score: 0, says: 'Nobody could say whether the client has a name.' },
  { rule: 'HELO_BARE_IP', score: 3, says: 'The client calls itself by a bare address.' },
  { rule: 'HELO_IS_OURS', score: 4, says: 'The client calls itself by a name of ours.' },
  { rule: 'HELO_NOT_FQDN', score: 2, says: 'The client calls itself by no full name of a host.' },
  { rule: 'HELO_NO_ADDRESS', score: 1, says: 'The client calls itself by a name without address.' },
  { rule: 'URIBL_UNKNOWN', score: 0, says: 'A list did not say whether it has a link.' },
  { rule: 'URIBL_PARTIAL', score: 0, says: 'Not all links were looked up in lists.' },
]
