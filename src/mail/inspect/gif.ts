/** Frames of a GIF (GIF89a specification): decoders of pictures show the first, readers of mail all in turn. */

/** Frames that are looked at, the largest first. */
const FRAMES_MAX = 4
/** Blocks that are walked over: 100,000 frames are no film. */
const BLOCKS_MAX = 20_000

type Frame = { readonly pixels: number; readonly start: number; readonly end: number }

/** Each of the largest frames as a GIF of its own; empty where `gif` is none, or has one frame. Never throws. */
export function framesOf(gif: Buffer): readonly Buffer[] {
  if (gif.length < 13 || gif.toString('latin1', 0, 4) !== 'GIF8') return []
  const first = 13 + tableBytes(gif[10] ?? 0)
  const head = gif.subarray(0, first)
  const frames: Frame[] = []
  let start = first
  let at = first
  for (let blocks = 0; blocks < BLOCKS_MAX && at < gif.length; blocks += 1) {
    const kind = gif[at]
    if (kind === 0x21) at = behindPieces(gif, at + 2)
    else if (kind === 0x2c && at + 10 <= gif.length) {
      const pixels = gif.readUInt16LE(at + 5) * gif.readUInt16LE(at + 7)
      at = behindPieces(gif, at + 11 + tableBytes(gif[at + 9] ?? 0))
      frames.push({ pixels, start, end: at })
      start = at
    } else break
  }
  if (frames.length < 2) return []
  return frames
    .sort((a, b) => b.pixels - a.pixels)
    .slice(0, FRAMES_MAX)
    .map(({ start: from, end }) => Buffer.concat([head, gif.subarray(from, end), TRAILER]))
}

const TRAILER = Buffer.of(0x3b)

/** Colours by the flags of a screen or of a frame. */
function tableBytes(flags: number): number {
  return (flags & 0x80) === 0 ? 0 : 3 * 2 ** ((flags & 7) + 1)
}

/** Behind pieces of which each says its length, up to the empty one. */
function behindPieces(gif: Buffer, from: number): number {
  let at = from
  while (at < gif.length && gif[at] !== 0) at += 1 + (gif[at] ?? 0)
  return at + 1
}
