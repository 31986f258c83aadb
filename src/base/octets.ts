/** Scans octets four at a time: nearly all of a mail is text that nobody has to look at twice. */

/**
 * What `nextControl` reads. Make it once for a block, not once for a search: it costs more than a
 * short line. Aligned down to a word, so that any view of memory has one.
 */
export type Words = { readonly words: Int32Array; readonly skew: number }

export function wordsOf({ buffer, byteOffset, length }: Uint8Array): Words {
  const skew = byteOffset & 3
  return { words: new Int32Array(buffer, byteOffset - skew, (length + skew) >> 2), skew }
}

/**
 * The place of the first octet below 14 (NUL, TAB, LF, CR and their like) from `from` on, or the
 * length when there is none.
 */
export function nextControl(bytes: Uint8Array, { words, skew }: Words, from: number): number {
  const { length } = bytes
  let index = from
  while (index < length && ((index + skew) & 3) !== 0) {
    if ((bytes[index] as number) < 14) return index
    index += 1
  }
  let word = (index + skew) >> 2
  while (word < words.length) {
    const four = words[word] as number
    // Exact as a whole: a borrow reaches an octet only from one below 14.
    if (((four - 0x0e0e0e0e) & ~four & 0x80808080) !== 0) break
    word += 1
  }
  index = Math.min(length, Math.max(index, (word << 2) - skew))
  while (index < length && (bytes[index] as number) >= 14) index += 1
  return index
}
