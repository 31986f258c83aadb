/** The policy of one recipient: its domain's thresholds, or those of the settings. Pure. */
import { domainToASCII } from 'node:url'
import type { Snapshot } from '../../config/snapshot.ts'

export type Policy = {
  /** Score from which the copy is held. */
  readonly hold: number
  /** Score from which the copy is refused. Wins where it is not above `hold`. */
  readonly reject: number
  /** What a domain asks for in DMARC is done. */
  readonly enforce: boolean
}

/**
 * `recipientAddress` as the client wrote it. A domain that is not ours (outbound mail) has the
 * policy of the settings.
 */
export function policyFor(snapshot: Snapshot, recipientAddress: string): Policy {
  const domain = snapshot.domains.get(domainOf(recipientAddress))
  return {
    hold: domain?.hold ?? snapshot.settings['policy.hold'],
    reject: domain?.reject ?? snapshot.settings['policy.reject'],
    enforce: domain?.enforce ?? snapshot.settings['sender.enforce'] === 'on',
  }
}

/** Lower case, A-label form, without the trailing dot: as snapshots name domains. */
function domainOf(address: string): string {
  const written = address.slice(address.lastIndexOf('@') + 1).toLowerCase()
  const ascii = /^[\x00-\x7f]*$/.test(written) ? written : domainToASCII(written)
  return ascii.endsWith('.') ? ascii.slice(0, -1) : ascii
}
