/** Not written yet. */
import type { Inspector } from './look.ts'

export const links: Inspector = { name: 'links', inspect: () => [] }
