/** Not written yet. */
import type { Inspector } from './look.ts'

export const blocklists: Inspector = { name: 'blocklists', inspect: () => [] }
