/** SHA-256 of a decoded content: the tree, the list of files and the rules ask for the same, so it is taken once. */

const known = new WeakMap<Buffer, string>()

/** Hex. Kept as long as the buffer itself; its octets must not change. */
export function digestOf(content: Buffer): string {
  const before = known.get(content)
  if (before !== undefined) return before
  const digest = new Bun.CryptoHasher('sha256').update(content).digest('hex')
  known.set(content, digest)
  return digest
}
