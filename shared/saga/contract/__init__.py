"""All that two services know of each other: messages, subjects, ids and the few shared errors. Pure."""
