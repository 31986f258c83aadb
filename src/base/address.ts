/** IPv6 addresses as their eight groups (RFC 4291 section 2.2). Pure. */

/** Eight groups in hex, as they are written and without zeros in front; of a valid address only. */
export function groupsOf(ipv6: string): readonly string[] {
  const bare = ipv6.split('%')[0] ?? ipv6
  const dotted = /^(.*:)(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(bare)
  const plain = dotted === null ? bare : `${dotted[1]}${pair(dotted, 2)}:${pair(dotted, 4)}`
  const [head = '', tail = ''] = plain.split('::')
  const left = head === '' ? [] : head.split(':')
  const right = tail === '' ? [] : tail.split(':')
  const zeros = Array<string>(plain.includes('::') ? 8 - left.length - right.length : 0).fill('0')
  return [...left, ...zeros, ...right].map((group) => group.replace(/^0+(?=.)/, '').toLowerCase())
}

function pair(octets: readonly string[], at: number): string {
  return (Number(octets[at]) * 256 + Number(octets[at + 1])).toString(16)
}
